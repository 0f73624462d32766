/* A thread that differs from the main thread in what threads may have of their own. */
#include "state.h"
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static volatile int tid;
static char stack[65536];

static void *other_thread(void *argument)
{
    (void)argument;
    int own = syscall(SYS_gettid);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    CHECK(prctl(PR_SET_NAME, "odd\n\\name") == 0 && prctl(PR_SET_TIMERSLACK, 123456UL) == 0 && prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
    CHECK(setpriority(PRIO_PROCESS, own, 5) == 0);
    struct sched_param none = {0};
    CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    CHECK(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(sigaltstack(&alternate, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(unshare(CLONE_FS) == 0);
    tid = own;
    for (;;)
        pause();
    return NULL;
}

int main(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    while (tid == 0)
        usleep(1000);
    char line[200];
    snprintf(line, sizeof line, "%d %p", tid, (void *)stack);
    ready(line);
    done();
}
