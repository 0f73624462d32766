/* The main thread has ended; another one lives on. */
#include "state.h"
#include <pthread.h>

static void *other_thread(void *argument)
{
    (void)argument;
    usleep(50000);
    char line[50];
    snprintf(line, sizeof line, "%ld", syscall(SYS_gettid));
    ready(line);
    done();
    return NULL;
}

int main(void)
{
    pthread_t thread;
    umask(011);
    signal(SIGUSR1, SIG_IGN);
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    pthread_exit(NULL);
}
