/* A thread waits with epoll_wait, 20 ms at most, for a byte that another writes every millisecond. A line on stdin prints "done N", or
 * "early" if a wait ended without a byte though it had not lasted 20 ms. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int pipes[2], epoll;
static atomic_int over;
static atomic_long rounds;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *writer(void *unused)
{
    while (!over) {
        usleep(1000);
        if (write(pipes[1], "x", 1) != 1)
            exit(1);
    }
    return unused;
}

static void *waiter(void *unused)
{
    struct epoll_event event;
    char byte;
    while (!over) {
        long long begin = now();
        int result = epoll_wait(epoll, &event, 1, 20);
        if (result == 0 && now() - begin < 20000000) {
            printf("early after %lld us\n", (now() - begin) / 1000);
            exit(0);
        }
        if (result < 0 || (result == 1 && read(pipes[0], &byte, 1) != 1)) {
            printf("failed %d\n", errno);
            exit(0);
        }
        rounds++;
    }
    return unused;
}

int main(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    pthread_t threads[2];
    char line[8];

    if (pipe(pipes))
        return 1;
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    pthread_create(&threads[0], NULL, writer, NULL);
    pthread_create(&threads[1], NULL, waiter, NULL);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    over = 1;
    pthread_join(threads[1], NULL);
    printf("done %ld\n", (long)rounds);
}
