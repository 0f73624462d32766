/* Pseudo-terminals whose both ends are here: modes, sizes, packet mode, locks, what waits in them, and a session with a controlling terminal. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>

static int make(char *name) {
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && ptsname_r(master, name, 40) == 0);
    return master;
}

static void set(int slave, tcflag_t local, tcflag_t output) {
    struct termios attributes;
    CHECK(tcgetattr(slave, &attributes) == 0);
    attributes.c_lflag = local, attributes.c_oflag = output;
    CHECK(tcsetattr(slave, TCSANOW, &attributes) == 0);
}

static volatile sig_atomic_t resized, interrupted;
static void on_resize(int signal) { resized = signal; }
static void on_interrupt(int signal) { interrupted = signal; }

/* The leader of a session on a terminal of its own, and its child in the background. */
static int session(const char *name, int orders, int answers) {
    char byte;
    CHECK(setsid() > 0);
    int slave = open(name, O_RDWR), tty;
    CHECK(slave >= 0 && (tty = open("/dev/tty", O_RDWR)) >= 0);
    signal(SIGWINCH, on_resize);
    signal(SIGINT, on_interrupt);
    pid_t background = fork();
    if (background == 0) {
        CHECK(setpgid(0, 0) == 0);
        CHECK(write(answers, "b", 1) == 1 && read(orders, &byte, 1) == 1);
        _exit(tcgetpgrp(tty) == getppid() && getpgrp() == getpid() && getsid(0) == getppid() ? 7 : 8);
    }
    pid_t job = fork();
    if (job == 0) {
        CHECK(setpgid(0, 0) == 0 && close(slave) == 0);
        CHECK(write(answers, "j", 1) == 1 && read(orders, &byte, 1) == 1);
        _exit(7);
    }
    CHECK(write(answers, "l", 1) == 1);
    while (read(orders, &byte, 1) != 1)
        ;
    CHECK(tcgetpgrp(slave) == getpgrp() && tcgetsid(tty) == getpid());
    CHECK(strcmp(ttyname(slave), name) == 0 && isatty(tty));
    CHECK(write(answers, "w", 1) == 1);
    while (!resized || !interrupted)
        pause();
    int status;
    CHECK(waitpid(background, &status, 0) == background && WEXITSTATUS(status) == 7);
    CHECK(waitpid(job, &status, 0) == job && WEXITSTATUS(status) == 7);
    return 7;
}

static void all(int fd, char *to, int count) {
    for (int got = 0, more; got < count; got += more)
        CHECK((more = read(fd, to + got, count - got)) > 0);
}

int main(void) {
    char one[40], two[40], three[40], four[40], buffer[100];
    int orders[2], answers[2], status;
    struct winsize size = {33, 77, 1, 2}, found, other = {34, 78, 0, 0};
    CHECK(pipe(orders) == 0 && pipe(answers) == 0);

    int first = make(one);
    CHECK(ioctl(first, TIOCSWINSZ, &size) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(session(one, orders[0], answers[1]));
    all(answers[0], buffer, 3);

    /* Raw, packet mode, with something printed. */
    int second = make(two), slave = open(two, O_RDWR | O_NOCTTY), on = 1;
    struct termios raw, attributes;
    CHECK(slave >= 0 && tcgetattr(slave, &raw) == 0);
    cfmakeraw(&raw);
    cfsetspeed(&raw, B9600);
    raw.c_cc[VMIN] = 3;
    CHECK(tcsetattr(slave, TCSANOW, &raw) == 0 && ioctl(second, TIOCPKT, &on) == 0);
    CHECK(write(slave, "printed\n", 8) == 8 && write(second, "typ\003ed\n", 7) == 7);

    /* Line by line, with lines, one of which ends without a newline, and the beginning of another. */
    int third = make(three), lines = open(three, O_RDWR | O_NOCTTY);
    set(lines, ICANON | ISIG | IEXTEN, OPOST | ONLCR);
    CHECK(write(third, "a\nbb\ncc\004d", 9) == 9 && write(lines, "out\n", 4) == 4);

    int locked = posix_openpt(O_RDWR | O_NOCTTY), hung;
    CHECK(locked >= 0 && ptsname_r(locked, four, sizeof four) == 0);
    char five[40];
    int gone = make(five);
    hung = open(five, O_RDWR | O_NOCTTY);
    CHECK(hung >= 0 && close(gone) == 0);

    struct { int fd, bytes; } written[] = {{slave, 7}, {second, 8}, {lines, 7}, {third, 5}};
    for (int index = 0; index < 4; index++)  /* the terminals pass them on from time to time */
        for (int waits = 0; waits < written[index].bytes; usleep(1000))
            CHECK(ioctl(written[index].fd, FIONREAD, &waits) == 0);
    wait_to_be_restored();

    char now[40];
    CHECK(ptsname_r(first, now, sizeof now) == 0 && strcmp(now, one) == 0);
    CHECK(ptsname_r(third, now, sizeof now) == 0 && strcmp(now, three) == 0);
    CHECK(ioctl(first, TIOCGWINSZ, &found) == 0 && memcmp(&found, &size, sizeof size) == 0);
    CHECK(write(orders[1], "go!", 3) == 3);
    all(answers[0], buffer, 1);
    CHECK(*buffer == 'w' && ioctl(first, TIOCSWINSZ, &other) == 0 && write(first, "\003", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);

    CHECK(tcgetattr(slave, &attributes) == 0 && memcmp(&attributes, &raw, sizeof raw) == 0);
    CHECK(read(second, buffer, sizeof buffer) == 9 && memcmp(buffer, "\0printed\n", 9) == 0);
    CHECK(read(slave, buffer, sizeof buffer) == 7 && memcmp(buffer, "typ\003ed\n", 7) == 0);
    CHECK(write(slave, "x", 1) == 1 && read(second, buffer, sizeof buffer) == 2 && memcmp(buffer, "\0x", 2) == 0);

    CHECK(read(lines, buffer, sizeof buffer) == 2 && memcmp(buffer, "a\n", 2) == 0);
    CHECK(read(lines, buffer, sizeof buffer) == 3 && memcmp(buffer, "bb\n", 3) == 0);
    CHECK(read(lines, buffer, sizeof buffer) == 2 && memcmp(buffer, "cc", 2) == 0);
    CHECK(write(third, "\177e\n", 3) == 3);
    CHECK(read(lines, buffer, sizeof buffer) == 2 && memcmp(buffer, "e\n", 2) == 0);
    CHECK(read(third, buffer, sizeof buffer) == 5 && memcmp(buffer, "out\r\n", 5) == 0);

    CHECK(open(four, O_RDWR | O_NOCTTY) < 0 && errno == EIO && unlockpt(locked) == 0);
    CHECK(open(four, O_RDWR | O_NOCTTY) >= 0);
    CHECK(read(hung, buffer, 1) == 0 && tcgetattr(hung, &attributes) < 0 && errno == EIO);
    return verified();
}
