/* The first process of a pid namespace, with a child. */
#include "restore_check.h"
#include <signal.h>
#include <sys/wait.h>

int main(void) {
    int status, child = fork();
    if (child == 0)
        for (;;)
            pause();
    CHECK(getpid() == 1 && child == 2);
    wait_to_be_restored();
    CHECK(getpid() == 1 && getppid() == 0);
    int another = fork();
    if (another == 0)
        _exit(3);
    CHECK(another == 3 && waitpid(another, &status, 0) == another && WEXITSTATUS(status) == 3);
    CHECK(kill(child, SIGTERM) == 0 && waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
    return verified();
}
