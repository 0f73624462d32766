/* The main thread ends; two others go on. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    puts("ready");
    fflush(stdout);
    pthread_exit(NULL);
}
