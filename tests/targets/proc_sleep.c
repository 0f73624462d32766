/* Prints "ready", then sleeps until killed. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
