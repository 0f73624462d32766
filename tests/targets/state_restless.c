/* A thread that takes another alternate stack for each byte that it reads from standard input. */
#include "state.h"
#include <pthread.h>

static char stacks[20][65536];
static volatile int tid;

static void *other_thread(void *argument)
{
    (void)argument;
    char byte;
    for (int i = 0;; i++) {
        stack_t alternate = {.ss_sp = stacks[i % 20], .ss_size = sizeof stacks[0]};
        CHECK(sigaltstack(&alternate, NULL) == 0);
        tid = syscall(SYS_gettid);
        if (i > 0) {
            printf("%p\n", alternate.ss_sp);
            fflush(stdout);
        }
        if (read(0, &byte, 1) != 1)
            exit(0);
    }
}

int main(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    while (tid == 0)
        usleep(1000);
    printf("%d\n", tid);
    fflush(stdout);
    for (;;)
        pause();
}
