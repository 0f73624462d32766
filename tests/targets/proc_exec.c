/* proc_exec THREADS: a program that calls exec on itself again and again; with threads, from one that is not the main one. Each of them
 * checks that it is alone at first. Prints "ready" once. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char **arguments;

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void *replace(void *unused)
{
    usleep(500);
    execv("/proc/self/exe", arguments);
    _exit(1);
    return unused;
}

int main(int argc, char **argv)
{
    int threads = atoi(argv[1]);
    pthread_attr_t small;
    pthread_t thread;
    char *again[] = {argv[0], argv[1], "again", NULL};

    if (argc == 2)
        write(1, "ready\n", 6);
    arguments = again;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 0; i < threads; i++)
        pthread_create(&thread, &small, wait_for_ever, NULL);
    if (threads == 0)
        replace(NULL);
    pthread_create(&thread, &small, replace, NULL);
    wait_for_ever(NULL);
}
