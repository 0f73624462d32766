/* proc_threads N: N threads, the main one among them, wait until killed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 1;
    pthread_attr_t small;
    pthread_t thread;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 1; i < count; i++)
        if (pthread_create(&thread, &small, wait_for_ever, NULL))
            return 1;
    puts("ready");
    fflush(stdout);
    wait_for_ever(NULL);
}
