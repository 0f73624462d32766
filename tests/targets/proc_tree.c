/* proc_tree DEPTH WIDTH: a tree of sleeping processes; prints "ready" when all are there. They end with their parents. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int depth = argc > 1 ? atoi(argv[1]) : 1, width = argc > 2 ? atoi(argv[2]) : 1;
    int told[2], missing = 0;
    char byte = 0;

    if (pipe(told))
        return 1;
    for (int level = 1, size = 1; level <= depth; level++)
        missing += size *= width;
    for (int level = 0, child = 0; level < depth; level++)
        for (child = 0; child < width; child++)
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (write(told[1], &byte, 1) != 1)
                    return 1;
                child = -1;
                if (level == depth - 1)
                    for (;;)
                        pause();
                break;
            } else if (child == width - 1) {
                if (level)
                    for (;;)
                        pause();
                for (; missing; missing--)
                    if (read(told[0], &byte, 1) != 1)
                        return 1;
                puts("ready");
                fflush(stdout);
                for (;;)
                    pause();
            }
}
