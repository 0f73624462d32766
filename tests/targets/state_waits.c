/* Threads that wait with a timeout. Says when it began, by CLOCK_MONOTONIC in ns, and the thread ids; then sleeps for long. */
#include "state.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>

static volatile int epolling, polling;

static void *epoller(void *argument)
{
    (void)argument;
    struct epoll_event event;
    int epoll = epoll_create1(0);
    epolling = syscall(SYS_gettid);
    epoll_wait(epoll, &event, 1, 900000);
    return NULL;
}

static void *poller(void *argument)
{
    (void)argument;
    polling = syscall(SYS_gettid);
    poll(NULL, 0, -1);
    return NULL;
}

int main(void)
{
    pthread_t first, second;
    struct timespec now, long_time = {1000, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    CHECK(pthread_create(&first, NULL, epoller, NULL) == 0 && pthread_create(&second, NULL, poller, NULL) == 0);
    while (epolling == 0 || polling == 0)
        usleep(1000);
    printf("%d %d %lld\n", epolling, polling, now.tv_sec * 1000000000LL + now.tv_nsec);
    fflush(stdout);
    nanosleep(&long_time, NULL);
    return 1;
}
