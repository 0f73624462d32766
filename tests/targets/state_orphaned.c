/* The main thread has ended; another one lives on. */
#include "state.h"
#include <pthread.h>

static void *other_thread(void *argument)
{
    (void)argument;
    char line[200] = "";
    while (!strstr(line, ") Z ")) {
        FILE *file = fopen("/proc/self/stat", "r");
        CHECK(file && fgets(line, sizeof line, file) && fclose(file) == 0);
    }
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
