/* Waits for bytes on stdin with epoll_wait, 200 ms at most for each, always from the same place. Prints "early" if a wait ended without a byte
 * before its time, and "end N" when an "e" has come, after N bytes. */
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    /* In memory, so that all waits have the same registers. */
    static volatile long long begin;
    static volatile int bytes;
    static char byte;
    int epoll = epoll_create1(0);

    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    puts("ready");
    fflush(stdout);
    while (byte != 'e') {
        begin = now();
        if (epoll_wait(epoll, &event, 1, 200) == 1 && read(0, &byte, 1) == 1)
            bytes++;
        else if (now() - begin < 200000000) {
            puts("early");
            return 0;
        }
    }
    printf("end %d\n", bytes);
}
