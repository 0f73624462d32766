/* Interval timers and POSIX timers. */
#include "state.h"
#include <sys/time.h>
#include <time.h>

int main(void)
{
    struct itimerval real = {.it_value = {4000, 0}, .it_interval = {3, 21}}, profile = {.it_value = {900, 0}};
    CHECK(setitimer(ITIMER_REAL, &real, NULL) == 0 && setitimer(ITIMER_PROF, &profile, NULL) == 0);
    timer_t armed, idle;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 0x77};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &armed) == 0);
    struct itimerspec time = {.it_value = {5000, 0}, .it_interval = {0, 250}};
    CHECK(timer_settime(armed, 0, &time, NULL) == 0);
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = getpid();
    CHECK(timer_create(CLOCK_REALTIME, &event, &idle) == 0);

    char line[200];
    snprintf(line, sizeof line, "%d", SIGRTMIN + 2);
    ready(line);

    CHECK(timer_gettime(armed, &time) == 0 && time.it_value.tv_sec >= 4000 && time.it_interval.tv_nsec == 250);
    CHECK(getitimer(ITIMER_REAL, &real) == 0 && real.it_value.tv_sec >= 3000 && real.it_interval.tv_usec == 21);
    done();
}
