/* The main thread is in vfork, whose child waits for a line on stdin before it ends; another thread counts. Prints "ready" and the child's
 * pid, and, when the child has ended, "over". */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *count(void *unused)
{
    for (;;)
        usleep(1000);
    return unused;
}

int main(void)
{
    pthread_t thread;
    char text[32];
    int status, child;

    pthread_create(&thread, NULL, count, NULL);
    child = vfork();
    if (child == 0) {
        int length = snprintf(text, sizeof text, "ready %d\n", getpid());
        if (write(1, text, length) != length || read(0, text, 1) != 1)
            _exit(1);
        _exit(7);
    }
    if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7)
        puts("over");
    fflush(stdout);
    pause();
}
