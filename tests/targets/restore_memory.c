/* Mappings: protections, growing stacks, advice, locks, names, shared anonymous memory, huge offsets; brk; the kernel's clock functions. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

static int deep(int n) {
    volatile char room[8192];
    memset((char *)room, n, sizeof room);
    return n ? deep(n - 1) + room[5] - (char)n + 1 : 1;
}

static int flagged(const void *at, const char *flag) {
    char line[1000], wanted[40];
    int inside = 0, result = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)at);
    while (fgets(line, sizeof line, file)) {
        if (strchr("0123456789abcdef", line[0]) && strchr(line, '-')) inside = !strncmp(line, wanted, strlen(wanted));
        if (inside && !strncmp(line, "VmFlags:", 8)) result = strstr(line, flag) != 0;
    }
    fclose(file);
    return result;
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    size_t size = 16 * 4096;
    int both = PROT_READ | PROT_WRITE;
    char *locked = mmap((void *)0x700000000000, size, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    char *no_fork = mmap((void *)0x700010000000, size, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    char *growing = mmap((void *)0x700020100000, size, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    char *shared = mmap(0, size, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *wiped = mmap((void *)0x700030000000, size, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    char *code = mmap((void *)0x700040000000, 4096, both | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int can_lock = mlock(locked, size) == 0;
    CHECK(madvise(no_fork, size, MADV_DONTFORK) == 0 && madvise(wiped, size, MADV_WIPEONFORK) == 0);
    CHECK(madvise(no_fork, size, MADV_DONTDUMP) == 0);
    strcpy(no_fork, "not for children");
    strcpy(wiped, "wiped");
    strcpy(growing, "stack");
    strcpy(shared + 4096, "shared");
    memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6);
    CHECK(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
    void *end = sbrk(20000);
    strcpy(end, "brk");
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);

    wait_to_be_restored();
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(sbrk(0) == (char *)end + 20000 && sbrk(1 << 20) == (char *)end + 20000);
    CHECK(after.tv_sec >= before.tv_sec);
    CHECK(!can_lock || flagged(locked, " lo"));
    CHECK(flagged(no_fork, " dc") && flagged(no_fork, " dd") && flagged(wiped, " wf") && flagged(growing, " gd"));
    CHECK(!strcmp(no_fork, "not for children") && !strcmp(wiped, "wiped") && !strcmp(growing, "stack") && !strcmp(end, "brk"));
    growing[-4096 * 3] = 1;
    CHECK(((int (*)(void))code)() == 42);
    pid_t child = fork();
    if (child == 0) {
        strcpy(shared, "from the child");
        _exit(wiped[0] ? 1 : 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && !strcmp(shared, "from the child") && !strcmp(shared + 4096, "shared"));
    CHECK(deep(200) > 0);
    FILE *file = fopen("/proc/self/cmdline", "r");
    char text[1000] = "";
    CHECK(fread(text, 1, sizeof text - 1, file) > 0 && strstr(text, "restore_memory"));
    CHECK(readlink("/proc/self/exe", text, sizeof text) > 0 && strstr(text, "restore_memory"));
    return verified();
}
