/* Threads that start others and end, without pause: N chains of them. A line on stdin prints how many threads there were. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_attr_t small;
static atomic_long started;

static void *link_of_chain(void *unused)
{
    pthread_t next;
    for (volatile int i = 0; i < 20000; i++)
        ;
    started++;
    while (pthread_create(&next, &small, link_of_chain, NULL))
        usleep(100);
    return unused;
}

int main(int argc, char **argv)
{
    int chains = argc > 1 ? atoi(argv[1]) : 1;
    char line[8];
    pthread_t thread;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    while (chains--)
        pthread_create(&thread, &small, link_of_chain, NULL);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%ld\n", (long)started);
        fflush(stdout);
    }
    _exit(0);
}
