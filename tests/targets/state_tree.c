/* A process with a child in a process group of its own, a child that is dead, and one that shares its descriptor table. */
#include "state.h"
#include <sched.h>
#include <sys/ioctl.h>

static char stack[65536];

static int sharing(void *argument)
{
    (void)argument;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    int file = open(argv[0], O_RDONLY), pipes[2], other = open(argv[0], O_RDONLY);
    CHECK(pipe(pipes) == 0 && write(pipes[1], "shared", 6) == 6);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        close(other);
        CHECK(open(argv[0], O_RDONLY) == other);
        CHECK(dup2(file, 40) == 40 && write(pipes[1], "+", 1) == 1);
        for (;;)
            pause();
    }
    pid_t dead = fork();
    if (dead == 0)
        _exit(42);
    pid_t killed = fork();
    if (killed == 0)
        for (;;)
            pause();
    kill(killed, SIGTERM);
    siginfo_t info;
    CHECK(waitid(P_PID, dead, &info, WEXITED | WNOWAIT) == 0 && waitid(P_PID, killed, &info, WEXITED | WNOWAIT) == 0);
    pid_t clone_ = clone(sharing, stack + sizeof stack, CLONE_FILES | CLONE_FS | SIGCHLD, NULL);
    CHECK(clone_ > 0);
    char byte[8];
    while (1) { /* until the child has said that it is ready */
        int count = 0;
        CHECK(ioctl(pipes[0], FIONREAD, &count) == 0);
        if (count == 7)
            break;
        usleep(1000);
    }
    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d %d %d", child, dead, killed, clone_, file, other, pipes[0]);
    ready(line);
    CHECK(read(pipes[0], byte, 8) == 7);
    kill(child, SIGKILL);
    kill(clone_, SIGKILL);
    int status;
    CHECK(waitpid(dead, &status, 0) == dead && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    done();
}
