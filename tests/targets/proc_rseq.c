/* Two threads on one CPU add to one number without atomic instructions, in a restartable sequence (rseq(2)): a read, a delay, and a write
 * that must not happen if the thread was interrupted in between. A line on stdin ends it: prints "done N", or how many additions were lost. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIGNATURE 0x53053053

struct rseq_area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t rseq_cs;
    uint32_t flags, node_id, mm_cid, end[1];
} __attribute__((aligned(32)));

static atomic_int over;
static volatile uint64_t number;
static uint64_t added[2], aborted[2];

static int add(struct rseq_area *area)
{
    asm volatile goto(
        ".pushsection .data.rseq_cs, \"aw\"\n"
        ".balign 32\n"
        "9: .long 0, 0\n"
        ".quad 1f, 2f - 1f, 4f\n"
        ".popsection\n"
        "lea 9b(%%rip), %%rax\n"
        "mov %%rax, 8(%[area])\n"
        "1: mov number(%%rip), %%rcx\n"
        "mov $2000, %%eax\n"
        "3: dec %%eax\n"
        "jnz 3b\n"
        "inc %%rcx\n"
        "mov %%rcx, number(%%rip)\n"
        "2: movq $0, 8(%[area])\n"
        ".pushsection .text.unlikely, \"ax\"\n"
        ".byte 0x0f, 0xb9, 0x3d\n"
        ".long 0x53053053\n"
        "4: jmp %l[abort]\n"
        ".popsection\n"
        :
        : [area] "r"(area)
        : "rax", "rcx", "memory", "cc"
        : abort);
    return 1;
abort:
    return 0;
}

static void *worker(void *argument)
{
    long which = (long)argument;
    static struct rseq_area areas[2];
    cpu_set_t one;
    int cpu;
    if (syscall(SYS_rseq, &areas[which], sizeof areas[which], 0, SIGNATURE)) {
        puts("no rseq");
        fflush(stdout);
        over = 1;
        return NULL;
    }
    sched_getaffinity(0, sizeof one, &one);
    for (cpu = 0; !CPU_ISSET(cpu, &one); cpu++)
        ;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    while (!over)
        if (add(&areas[which]))
            added[which]++;
        else
            aborted[which]++;
    syscall(SYS_rseq, &areas[which], sizeof areas[which], 1, SIGNATURE);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    char line[8];

    for (long which = 0; which < 2; which++)
        pthread_create(&threads[which], NULL, worker, (void *)which);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    over = 1;
    for (int which = 0; which < 2; which++)
        pthread_join(threads[which], NULL);
    if (number == added[0] + added[1])
        printf("done %lu\n", (unsigned long)number);
    else
        printf("lost %ld of %lu\n", (long)(added[0] + added[1] - number), (unsigned long)number);
}
