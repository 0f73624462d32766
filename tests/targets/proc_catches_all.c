/* Catches every signal that can be caught, and tells how many came when a line comes on stdin. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile int caught;

static void on_signal(int number)
{
    (void)number;
    caught++;
}

int main(void)
{
    char line[8];
    for (int number = 1; number <= SIGRTMAX; number++)
        sigaction(number, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%d signals\n", caught);
        fflush(stdout);
    }
}
