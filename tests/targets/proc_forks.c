/* Forks all the time: children that fork a child and end, and are waited for. A line on stdin ends it: prints "done N", N children waited for,
 * or what went wrong. */
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    struct pollfd line = {0, POLLIN, 0};
    long children = 0;
    int status;

    puts("ready");
    fflush(stdout);
    while (poll(&line, 1, 0) == 0) {
        int child = fork();
        if (child == 0) {
            int grandchild = fork();
            if (grandchild == 0)
                _exit(3);
            _exit(waitpid(grandchild, &status, 0) == grandchild && WEXITSTATUS(status) == 3 ? 4 : 5);
        }
        if (waitpid(-1, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 4) {
            puts("a child was lost");
            return 0;
        }
        children++;
    }
    printf("done %ld\n", children);
}
