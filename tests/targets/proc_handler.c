/* Prints how many times SIGUSR1 was handled, each time. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile int handled;

static void on_signal(int number)
{
    (void)number;
    handled++;
}

int main(void)
{
    int told = 0;
    sigset_t blocked, none;

    signal(SIGUSR1, on_signal);
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        sigsuspend(&none);
        while (told < handled)
            printf("%d\n", ++told);
        fflush(stdout);
    }
}
