/* One thread sends the other numbered real-time signals, each when the one before it has been handled, and three at once now and then; the
 * handler checks that none is missing, doubled or out of order, while the thread waits in sigsuspend, epoll_wait or computes. A line on stdin
 * ends it: prints "done N", or what was wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static atomic_int over, handled, wrong;
static pthread_t worker_thread;
static int epoll;

static void on_signal(int number, siginfo_t *info, void *unused)
{
    (void)number;
    (void)unused;
    if (info->si_code != SI_QUEUE || info->si_pid != getpid() || info->si_value.sival_int != handled)
        wrong = 1;
    handled++;
}

static void *worker(void *unused)
{
    sigset_t none;
    struct epoll_event event;
    sigemptyset(&none);
    for (;;) {
        /* The signal is blocked but in here, so that it ends these waits and cannot be missed. */
        if (handled % 2)
            sigsuspend(&none);
        else if (epoll_pwait(epoll, &event, 1, -1, &none) != -1 || errno != EINTR)
            wrong = 2;
    }
    return unused;
}

static void *wait_for_line(void *unused)
{
    char line[8];
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    over = 1;
    return unused;
}

int main(void)
{
    int sent = 0;
    sigset_t blocked;
    pthread_t reader;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};

    sigaction(SIGRTMIN, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    epoll = epoll_create1(0);
    pthread_create(&worker_thread, NULL, worker, NULL);
    pthread_create(&reader, NULL, wait_for_line, NULL);
    puts("ready");
    fflush(stdout);
    while (!over && !wrong) {
        for (int burst = sent % 5 == 0 ? 3 : 1; burst > 0; burst--)
            pthread_sigqueue(worker_thread, SIGRTMIN, (union sigval){.sival_int = sent++});
        while (handled != sent && !wrong)
            sched_yield();
    }
    if (wrong)
        printf("wrong %d after %d\n", wrong, handled);
    else
        printf("done %d\n", handled);
    return 0;
}
