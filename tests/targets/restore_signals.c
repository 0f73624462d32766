/* Handlers, masks, pending signals with their values and order, interval and POSIX timers. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <signal.h>
#include <sys/time.h>
#include <time.h>

static int order[100], values[100], count, alarms, ticks;

static void note(int n, siginfo_t *info, void *context) {
    order[count] = n;
    values[count++] = info->si_value.sival_int;
}
static void on_alarm(int n) { alarms++; }
static void on_tick(int n, siginfo_t *info, void *context) { ticks += info->si_value.sival_int == 77; }

int main(void) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART}, found;
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGRTMIN + 2);
    sigaddset(&action.sa_mask, SIGHUP);
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGRTMIN + 1, &action, 0);
    sigaction(SIGRTMIN + 2, &action, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTRAP, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, 0);
    for (int i = 0; i < 5; i++) sigqueue(getpid(), SIGRTMIN + 2 - i % 2, (union sigval){.sival_int = 100 + i});
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 7});

    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 77};
    struct sigaction tick = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerspec each = {{0, 200000000}, {0, 200000000}}, left;
    struct itimerval once = {{0, 0}, {0, 700000}};
    timer_t gone, timer, idle;
    sigaction(SIGRTMIN + 5, &tick, 0);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_RESTART}, 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &gone) == 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_create(CLOCK_REALTIME, &event, &idle) == 0);
    CHECK(timer_delete(gone) == 0);
    timer_settime(timer, 0, &each, 0);
    setitimer(ITIMER_REAL, &once, 0);

    wait_to_be_restored();
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGRTMIN + 1));
    sigprocmask(SIG_UNBLOCK, &set, 0);
    CHECK(count == 6);
    int first = order[0] == SIGUSR1 ? 0 : 5;
    CHECK(order[first] == SIGUSR1 && values[first] == 7);
    int low = 0, high = 0;
    for (int i = 0; i < 6; i++) {
        if (order[i] == SIGRTMIN + 1) CHECK(values[i] == 101 + 2 * low++);
        if (order[i] == SIGRTMIN + 2) CHECK(values[i] == 100 + 2 * high++);
    }
    CHECK(low == 2 && high == 3);
    sigaction(SIGUSR1, 0, &found);
    CHECK(found.sa_sigaction == note && (found.sa_flags & ~0x4000000) == (SA_SIGINFO | SA_RESTART) && sigismember(&found.sa_mask, SIGHUP));
    sigaction(SIGPIPE, 0, &found);
    CHECK(found.sa_handler == SIG_IGN);
    sigaction(SIGTRAP, 0, &found);
    CHECK(found.sa_handler == SIG_IGN);
    sigaction(SIGCHLD, 0, &found);
    CHECK(found.sa_handler == SIG_DFL);
    CHECK(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 200000000 && left.it_value.tv_nsec > 0);
    CHECK(timer_gettime(idle, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    CHECK(timer_gettime(gone, &left) == -1);
    int before = ticks;
    while (!alarms || ticks < before + 2) pause();
    return verified();
}
