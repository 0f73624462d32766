/* proc_steady busy|sleep|read: a thread watches over its own state while it computes, sleeps, or waits for a pipe. For each line on stdin,
 * prints "ok N more mappings", or what has changed: registers, FPU and vector state, signal mask, alternate stack, result of a
 * system call, descriptors, children. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *mode, *volatile wrong;
static atomic_long rounds;
static int quiet[2], counts[2];
static sigset_t mask;
static stack_t stack;
static char stack_memory[65536];

/* Every general register but rsp, and xmm0 to xmm15, hold known values while the loop counts; 0 if they still do after it. */
static long spin(void)
{
    long changed;
    asm volatile("push %%rbp; sub $8, %%rsp\n"
                 "mov $0x1111111111111111, %%rax; movq %%rax, %%xmm0; movq %%rax, %%xmm15\n"
                 "mov $0x2222222222222222, %%rbx; movq %%rbx, %%xmm1; movq %%rbx, %%xmm14\n"
                 "mov $0x3333333333333333, %%rdx; pcmpeqd %%xmm7, %%xmm7\n"
                 "mov $0x4444444444444444, %%rsi; mov $0x5555555555555555, %%rdi\n"
                 "mov $0x6666666666666666, %%rbp; mov $0x7777777777777777, %%r8\n"
                 "mov $0x0888888888888888, %%r9; mov $0x0999999999999999, %%r10\n"
                 "mov $0x0aaaaaaaaaaaaaaa, %%r11; mov $0x0bbbbbbbbbbbbbbb, %%r12\n"
                 "mov $0x0ccccccccccccccc, %%r13; mov $0x0ddddddddddddddd, %%r14\n"
                 "mov $0x0eeeeeeeeeeeeeee, %%r15\n"
                 "mov $200000, %%rcx\n"
                 "1: dec %%rcx; jnz 1b\n"
                 "mov %%rax, (%%rsp); mov $0x1111111111111111, %%rcx; xor (%%rsp), %%rcx\n"
                 "movq %%xmm0, %%rax; xor (%%rsp), %%rax; or %%rax, %%rcx; movq %%xmm15, %%rax; xor (%%rsp), %%rax; or %%rax, %%rcx\n"
                 "movq %%xmm1, %%rax; xor %%rbx, %%rax; or %%rax, %%rcx; movq %%xmm14, %%rax; xor %%rbx, %%rax; or %%rax, %%rcx\n"
                 "movq %%xmm7, %%rax; not %%rax; or %%rax, %%rcx\n"
                 "mov $0x2222222222222222, %%rax; xor %%rbx, %%rax; or %%rax, %%rcx\n"
                 "mov $0x3333333333333333, %%rax; xor %%rdx, %%rax; or %%rax, %%rcx\n"
                 "mov $0x4444444444444444, %%rax; xor %%rsi, %%rax; or %%rax, %%rcx\n"
                 "mov $0x5555555555555555, %%rax; xor %%rdi, %%rax; or %%rax, %%rcx\n"
                 "mov $0x6666666666666666, %%rax; xor %%rbp, %%rax; or %%rax, %%rcx\n"
                 "mov $0x7777777777777777, %%rax; xor %%r8, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0888888888888888, %%rax; xor %%r9, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0999999999999999, %%rax; xor %%r10, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0aaaaaaaaaaaaaaa, %%rax; xor %%r11, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0bbbbbbbbbbbbbbb, %%rax; xor %%r12, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0ccccccccccccccc, %%rax; xor %%r13, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0ddddddddddddddd, %%rax; xor %%r14, %%rax; or %%rax, %%rcx\n"
                 "mov $0x0eeeeeeeeeeeeeee, %%rax; xor %%r15, %%rax; or %%rax, %%rcx\n"
                 "add $8, %%rsp; pop %%rbp\n"
                 : "=c"(changed)
                 :
                 : "rax", "rbx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm7",
                   "xmm14", "xmm15", "memory", "cc");
    return changed;
}

/* The upper half of ymm3 over a loop, where the processor has it. */
__attribute__((target("avx"))) static int spin_avx(void)
{
    uint64_t in[4] = {1, 2, 3, 0x0123456789abcdef}, out[4] = {0};
    asm volatile("vmovdqu %1, %%ymm3; mov $100000, %%ecx; 1: dec %%ecx; jnz 1b; vmovdqu %%ymm3, %0; vzeroupper"
                 : "=m"(out)
                 : "m"(in)
                 : "ecx", "xmm3", "cc", "memory");
    return memcmp(in, out, sizeof in) != 0;
}

static void check_thread(void)
{
    sigset_t now;
    stack_t alternate;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    if (memcmp(&now, &mask, 8))
        wrong = "signal mask";
    sigaltstack(NULL, &alternate);
    if (alternate.ss_sp != stack.ss_sp || alternate.ss_size != stack.ss_size || alternate.ss_flags != 0)
        wrong = "alternate stack";
}

static void *worker(void *unused)
{
    unsigned short control, control_now;
    int avx = __builtin_cpu_supports("avx");
    (void)unused;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMIN + 3);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    stack.ss_sp = stack_memory;
    stack.ss_size = sizeof stack_memory;
    sigaltstack(&stack, NULL);
    control = 0x027f | 0x0400; /* x87: double precision, round down */
    asm volatile("fldcw %0" : : "m"(control));
    for (;;) {
        asm volatile("fnstcw %0" : "=m"(control_now));
        if (control_now != control)
            wrong = "x87 control word";
        if (!strcmp(mode, "busy")) {
            if (spin())
                wrong = "a register";
            if (avx && spin_avx())
                wrong = "an AVX register";
        } else if (!strcmp(mode, "sleep")) {
            struct timespec t = {0, 300000};
            if (syscall(SYS_nanosleep, &t, NULL))
                wrong = errno == EINTR ? "nanosleep: EINTR" : "nanosleep";
        } else {
            /* Written to by the main thread only. */
            char byte;
            if (read(quiet[0], &byte, 1) != 1 || byte != 'q')
                wrong = "read";
        }
        check_thread();
        rounds++;
    }
    return NULL;
}

static int count(const char *path)
{
    int n = 0;
    DIR *directory = opendir(path);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

static int mappings(void)
{
    int n = 0, byte;
    FILE *maps = fopen("/proc/self/maps", "r");
    while ((byte = getc(maps)) != EOF)
        n += byte == '\n';
    fclose(maps);
    return n;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char line[64];

    (void)argc;
    mode = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pipe(quiet))
        return 1;
    pthread_create(&thread, NULL, worker, NULL);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (counts[0] == 0) {
            counts[0] = count("/proc/self/fd");
            counts[1] = mappings();
        }
        if (!strcmp(mode, "read") && write(quiet[1], "q", 1) != 1)
            wrong = "write";
        long before = rounds;
        for (int i = 0; i < 5000 && rounds < before + 3 && strcmp(mode, "read"); i++)
            usleep(1000);
        if (strcmp(mode, "read") && rounds < before + 3)
            wrong = "the thread does not go on";
        if (count("/proc/self/fd") != counts[0])
            wrong = "descriptors";
        errno = 0;
        if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD)
            wrong = "a child";
        if (wrong)
            printf("changed: %s\n", wrong);
        else
            printf("ok %d more mappings\n", mappings() - counts[1]);
    }
}
