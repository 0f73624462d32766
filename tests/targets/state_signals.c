/* Handlers, masks, and signals that wait, for the process and for a thread. */
#include "state.h"
#include <pthread.h>
#include <ucontext.h>

static volatile int caught[128];

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    caught[signal]++;
}

static void *other_thread(void *argument)
{
    sigset_t set;
    sigfillset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    *(volatile int *)argument = syscall(SYS_gettid);
    for (;;)
        pause();
    return NULL;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER};
    sigset_t set;
    sigaddset(&action.sa_mask, SIGTERM);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGRTMIN + 1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    signal(SIGHUP, SIG_IGN);
    action.sa_flags |= SA_ONSTACK;
    CHECK(sigaction(64, &action, NULL) == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    for (int value = 7; value < 9; value++)
        CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = value}) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR2) == 0);
    static char stack[100000];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(sigaltstack(&alternate, NULL) == 0);
    volatile int tid = 0;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, (void *)&tid) == 0);
    while (tid == 0)
        usleep(1000);
    CHECK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0);

    char line[200];
    snprintf(line, sizeof line, "%d %d %p %p", tid, SIGRTMIN + 1, (void *)handler, (void *)stack);
    ready(line);

    CHECK(caught[SIGUSR1] == 0);
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
    CHECK(caught[SIGUSR1] == 1 && caught[SIGUSR2] == 1 && caught[SIGRTMIN + 1] == 2);
    done();
}
