/* Forbids itself memory that is both writable and executable, where the kernel can (Linux 6.3), then sleeps. */
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

int main(void)
{
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
