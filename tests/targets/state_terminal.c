/* A pty: a child is the leader of a session on its slave, in raw mode; the program itself holds the master. */
#include "state.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY), number, session[2];
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && ioctl(master, TIOCGPTN, &number) == 0);
    struct winsize size = {33, 77, 1, 2};
    CHECK(ioctl(master, TIOCSWINSZ, &size) == 0 && pipe(session) == 0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK(setsid() > 0);
        int slave = open(ptsname(master), O_RDWR);
        struct termios attributes;
        CHECK(slave >= 0 && tcgetattr(slave, &attributes) == 0);
        cfmakeraw(&attributes);
        cfsetspeed(&attributes, B9600);
        CHECK(tcsetattr(slave, TCSANOW, &attributes) == 0);
        close(master);
        CHECK(write(session[1], &slave, sizeof slave) == sizeof slave);
        for (;;)
            pause();
    }
    int slave;
    CHECK(read(session[0], &slave, sizeof slave) == sizeof slave);
    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d", child, slave, master, number);
    ready(line);
    kill(child, SIGKILL);
    done();
}
