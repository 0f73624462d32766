/* Files, directories, devices and locks. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <termios.h>
#include <dirent.h>
#include <sys/sendfile.h>
static int mk(const char *n, const char *c) {
    int fd = open(n, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    write(fd, c, strlen(c));
    return fd;
}

CASE(file_offset) {
    int fd = mk("f", "0123456789");
    lseek(fd, 4, 0);
    restored();
    char b;
    CHECK(read(fd, &b, 1) == 1 && b == '4');
}

CASE(file_append) {
    mk("f", "abc");
    int fd = open("f", O_WRONLY | O_APPEND);
    restored();
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    CHECK(write(fd, "d", 1) == 1);
    struct stat s;
    fstat(fd, &s);
    CHECK(s.st_size == 4);
}

CASE(file_flags) {
    mk("f", "abc");
    int fd = open("f", O_RDWR | O_NONBLOCK | O_SYNC);
    int fl = fcntl(fd, F_GETFL);
    int d = open("f", O_RDWR | O_DSYNC);
    int dl = fcntl(d, F_GETFL);
    int n = open("f", O_RDONLY | O_NOATIME);
    int nl = fcntl(n, F_GETFL);
    restored();
    CHECK(fcntl(fd, F_GETFL) == fl);
    CHECK(fcntl(d, F_GETFL) == dl && fcntl(n, F_GETFL) == nl);
}

CASE(file_readonly_modes) {
    mk("f", "abc");
    int r = open("f", O_RDONLY), w = open("f", O_WRONLY);
    restored();
    CHECK(write(r, "x", 1) == -1 && errno == EBADF);
    char b;
    CHECK(read(w, &b, 1) == -1 && errno == EBADF && write(w, "x", 1) == 1);
}

CASE(file_fork_shares_offset) {
    int fd = mk("f", "0123456789");
    lseek(fd, 2, 0);
    int e[2];
    pipe(e);
    pid_t c = fork();
    if (!c) {
        char b;
        close(e[1]);
        read(e[0], &b, 1);
        lseek(fd, 7, 0);
        _exit(0);
    }
    close(e[0]);
    usleep(10000);
    restored();
    write(e[1], "x", 1);
    waitpid(c, 0, 0);
    CHECK(lseek(fd, 0, 1) == 7);
}

CASE(file_high_fd) {
    int fd = mk("f", "x");
    int h = dup2(fd, 1000);
    CHECK(h == 1000);
    close(fd);
    restored();
    CHECK(fcntl(1000, F_GETFD) == 0);
    CHECK(fcntl(fd, F_GETFD) == -1);
    int n = open("/dev/null", O_RDONLY);
    CHECK(n == fd);
}

CASE(file_lowest_free) {
    int a = open("/dev/null", 0), b = open("/dev/null", 0), c = open("/dev/null", 0);
    close(b);
    restored();
    CHECK(open("/dev/null", 0) == b);
    CHECK(open("/dev/null", 0) == c + 1);
    (void)a;
}

CASE(file_many) {
    int fds[300];
    for (int i = 0; i < 300; i++) {
        fds[i] = open("/dev/zero", O_RDONLY);
    }
    int f = mk("f", "many");
    restored();
    for (int i = 0; i < 300; i++) {
        char b = 1;
        CHECK(read(fds[i], &b, 1) == 1 && !b);
    }
    char b[5] = {0};
    CHECK(pread(f, b, 4, 0) == 4 && !strcmp(b, "many"));
}

CASE(file_opath) {
    mk("f", "abc");
    int fd = open("f", O_PATH);
    restored();
    CHECK(fcntl(fd, F_GETFL) & O_PATH);
    char b;
    CHECK(read(fd, &b, 1) == -1 && errno == EBADF);
    struct stat s;
    CHECK(fstat(fd, &s) == 0 && s.st_size == 3);
    char p[50];
    sprintf(p, "/proc/self/fd/%d", fd);
    int g = open(p, O_RDONLY);
    CHECK(read(g, &b, 1) == 1 && b == 'a');
}

CASE(file_opath_symlink) {
    symlink("nowhere", "l");
    int fd = open("l", O_PATH | O_NOFOLLOW);
    CHECK(fd >= 0);
    restored();
    char b[20] = {0};
    CHECK(readlinkat(fd, "", b, 20) == 7 && !strcmp(b, "nowhere"));
}

CASE(file_tmpfile) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0) {
        restored();
        return;
    }
    write(fd, "tmp content", 11);
    restored();
    char b[12] = {0};
    CHECK(pread(fd, b, 11, 0) == 11 && !strcmp(b, "tmp content"));
    CHECK(lseek(fd, 0, 1) == 11);
    CHECK(write(fd, "!", 1) == 1);
    struct stat s;
    fstat(fd, &s);
    CHECK(s.st_nlink == 0 && (s.st_mode & 0777) == 0640);
}

CASE(file_tmpfile_link) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0) {
        restored();
        return;
    }
    write(fd, "tmp content", 11);
    restored();
    char p[50];
    sprintf(p, "/proc/self/fd/%d", fd);
    CHECK(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0);
    struct stat s;
    CHECK(stat("named", &s) == 0 && s.st_size == 11);
}

CASE(file_deleted) {
    int fd = mk("gone", "deleted content");
    unlink("gone");
    lseek(fd, 3, 0);
    restored();
    char b[5] = {0};
    CHECK(read(fd, b, 4) == 4 && !strcmp(b, "eted"));
    CHECK(write(fd, "XX", 2) == 2);
    struct stat s;
    fstat(fd, &s);
    CHECK(s.st_nlink == 0 && s.st_size == 15 && (s.st_mode & 0777) == 0644);
    CHECK(access("gone", F_OK) == -1);
}

CASE(file_deleted_fork) {
    int fd = mk("gone", "deleted content");
    unlink("gone");
    int e[2];
    pipe(e);
    pid_t c = fork();
    if (!c) {
        char b;
        close(e[1]);
        read(e[0], &b, 1);
        pwrite(fd, "child", 5, 0);
        _exit(0);
    }
    close(e[0]);
    usleep(10000);
    restored();
    write(e[1], "x", 1);
    waitpid(c, 0, 0);
    char b[6] = {0};
    CHECK(pread(fd, b, 5, 0) == 5 && !strcmp(b, "child"));
}

CASE(file_deleted_replaced) {
    int fd = mk("gone", "old");
    unlink("gone");
    close(mk("gone", "new one"));
    restored();
    char b[9] = {0};
    CHECK(pread(fd, b, 8, 0) == 3 && !strcmp(b, "old"));
    int g = open("gone", O_RDONLY);
    CHECK(read(g, b, 8) == 7);
}

CASE(file_deleted_hardlink) {
    int fd = mk("one", "linked");
    link("one", "two");
    unlink("one");
    restored();
    struct stat a, b;
    CHECK(fstat(fd, &a) == 0 && stat("two", &b) == 0 && a.st_ino == b.st_ino && a.st_nlink == 1);
    CHECK(pwrite(fd, "L", 1, 0) == 1);
    int g = open("two", O_RDONLY);
    char c;
    CHECK(read(g, &c, 1) == 1 && c == 'L');
}

CASE(file_dir_position) {
    mkdir("d", 0755);
    char n[20];
    for (int i = 0; i < 20; i++) {
        sprintf(n, "d/%d", i);
        close(mk(n, ""));
    }
    int fd = open("d", O_RDONLY | O_DIRECTORY);
    char b[200];
    int got = syscall(SYS_getdents64, fd, b, 100);
    CHECK(got > 0);
    int seen = 0;
    for (int o = 0; o < got; seen++) o += *(unsigned short *)(b + o + 16);
    restored();
    char big[8192];
    while ((got = syscall(SYS_getdents64, fd, big, 8192)) > 0) for (int o = 0; o < got; seen++) o += *(unsigned short *)(big + o + 16);
    CHECK(seen == 22);
}

CASE(file_dir_removed) {
    mkdir("rm", 0755);
    int fd = open("rm", O_RDONLY | O_DIRECTORY);
    rmdir("rm");
    restored();
    struct stat s;
    CHECK(fstat(fd, &s) == 0 && S_ISDIR(s.st_mode));
    CHECK(openat(fd, "x", O_CREAT | O_WRONLY, 0600) == -1 && errno == ENOENT);
}

CASE(file_flock_ex) {
    int fd = mk("l", "");
    CHECK(flock(fd, LOCK_EX) == 0);
    restored();
    int g = open("l", O_RDONLY);
    CHECK(flock(g, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    flock(fd, LOCK_UN);
    CHECK(flock(g, LOCK_SH | LOCK_NB) == 0);
}

CASE(file_posix_locks) {
    int fd = mk("l", "0123456789");
    struct flock a = {F_WRLCK, SEEK_SET, 2, 3}, b = {F_RDLCK, SEEK_SET, 7, 0};
    CHECK(!fcntl(fd, F_SETLK, &a) && !fcntl(fd, F_SETLK, &b));
    restored();
    pid_t c = fork();
    if (!c) {
        struct flock t = {F_WRLCK, SEEK_SET, 2, 1};
        int g = open("l", O_RDWR);
        CHECK(!fcntl(g, F_GETLK, &t) && t.l_type == F_WRLCK && t.l_start == 2 && t.l_len == 3 && t.l_pid == getppid());
        struct flock u = {F_WRLCK, SEEK_SET, 100, 1};
        CHECK(!fcntl(g, F_GETLK, &u) && u.l_type == F_RDLCK && u.l_len == 0);
        struct flock v = {F_WRLCK, SEEK_SET, 0, 2};
        CHECK(!fcntl(g, F_GETLK, &v) && v.l_type == F_UNLCK);
        _exit(0);
    }
    int st;
    waitpid(c, &st, 0);
    CHECK(st == 0);
}

CASE(file_posix_locks_two_processes) {
    int fd = mk("l", "0123456789");
    struct flock a = {F_WRLCK, SEEK_SET, 0, 1}, b = {F_WRLCK, SEEK_SET, 5, 1};
    fcntl(fd, F_SETLK, &a);
    int e[2], f[2];
    pipe(e);
    pipe(f);
    pid_t c = fork();
    if (!c) {
        char x;
        close(e[1]);
        fcntl(fd, F_SETLK, &b);
        write(f[1], "x", 1);
        read(e[0], &x, 1);
        struct flock t = {F_WRLCK, SEEK_SET, 0, 1};
        CHECK(!fcntl(fd, F_GETLK, &t) && t.l_type == F_WRLCK && t.l_pid == getppid());
        _exit(0);
    }
    char x;
    read(f[0], &x, 1);
    restored();
    struct flock t = {F_WRLCK, SEEK_SET, 5, 1};
    CHECK(!fcntl(fd, F_GETLK, &t) && t.l_type == F_WRLCK && t.l_pid == c);
    write(e[1], "x", 1);
    int st;
    waitpid(c, &st, 0);
    CHECK(!st);
}

CASE(file_ofd_lock) {
    int fd = mk("l", "0123456789");
    struct flock a = {F_WRLCK, SEEK_SET, 2, 3, 0};
    CHECK(!fcntl(fd, F_OFD_SETLK, &a));
    restored();
    int g = open("l", O_RDWR);
    struct flock t = {F_RDLCK, SEEK_SET, 0, 0, 0};
    CHECK(!fcntl(g, F_OFD_GETLK, &t) && t.l_type == F_WRLCK && t.l_start == 2 && t.l_pid == -1);
}

CASE(file_lock_blocked_waiter) {
    int fd = mk("l", "");
    flock(fd, LOCK_EX);
    pid_t c = fork();
    if (!c) {
        close(fd);
        int g = open("l", O_RDONLY);
        flock(g, LOCK_EX);
        _exit(7);
    }
    usleep(50000);
    restored();
    int st;
    CHECK(waitpid(c, &st, WNOHANG) == 0);
    close(fd);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 7);
}

CASE(file_lease) {
    int fd = mk("l", "");
    close(fd);
    fd = open("l", O_RDONLY);
    signal(SIGIO, SIG_IGN);
    int r = fcntl(fd, F_SETLEASE, F_RDLCK);
    restored();
    if (!r) CHECK(fcntl(fd, F_GETLEASE) == F_RDLCK);
}

CASE(file_lease_write) {
    int fd = mk("l", "");
    int r = fcntl(fd, F_SETLEASE, F_WRLCK);
    restored();
    if (!r) CHECK(fcntl(fd, F_GETLEASE) == F_WRLCK);
}

CASE(file_devices) {
    int n = open("/dev/null", O_RDWR), z = open("/dev/zero", O_RDONLY), f = open("/dev/full", O_WRONLY), u = open("/dev/urandom", O_RDONLY), r = open("/dev/random", O_RDONLY | O_NONBLOCK);
    restored();
    char b[4] = "abc";
    CHECK(read(n, b, 1) == 0 && write(n, b, 1) == 1 && read(z, b, 1) == 1 && !b[0] && write(f, b, 1) == -1 && errno == ENOSPC && read(u, b, 4) == 4);
    (void)r;
}

CASE(file_proc_self) {
    int a = open("/proc/self/status", O_RDONLY), b = open("/proc/self/maps", O_RDONLY), d = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    char x[100];
    read(a, x, 10);
    restored();
    CHECK(lseek(a, 0, SEEK_CUR) == 10);
    lseek(a, 0, 0);
    CHECK(read(a, x, 5) == 5 && !memcmp(x, "Name:", 5));
    CHECK(read(b, x, 100) > 0);
}

CASE(file_proc_other) {
    int a = open("/proc/version", O_RDONLY), b = open("/proc/meminfo", O_RDONLY), c = open("/proc/sys/kernel/ostype", O_RDONLY);
    restored();
    char x[100];
    CHECK(read(a, x, 5) == 5 && !memcmp(x, "Linux", 5) && read(b, x, 8) == 8 && read(c, x, 5) == 5);
}

CASE(file_mode_only_owner) {
    int fd = mk("f", "secret");
    fchmod(fd, 0);
    lseek(fd, 0, 0);
    restored();
    char b[7] = {0};
    CHECK(read(fd, b, 6) == 6 && !strcmp(b, "secret"));
    CHECK(write(fd, "x", 1) == 1);
}

CASE(file_readonly_writable_fd) {
    int fd = mk("f", "x");
    fchmod(fd, 0444);
    restored();
    CHECK(write(fd, "y", 1) == 1);
}

CASE(file_sigio_owner) {
    int p[2];
    pipe(p);
    fcntl(p[0], F_SETOWN, getpid());
    fcntl(p[0], F_SETSIG, SIGRTMIN + 3);
    fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &m, 0);
    restored();
    CHECK(fcntl(p[0], F_GETOWN) == getpid() && fcntl(p[0], F_GETSIG) == SIGRTMIN + 3);
    write(p[1], "x", 1);
    struct timespec t = {2, 0};
    siginfo_t i;
    CHECK(sigtimedwait(&m, &i, &t) == SIGRTMIN + 3 && i.si_fd == p[0]);
}

CASE(file_rwhint) {
    int fd = mk("f", "x");
    uint64_t h = 2;
    int r = fcntl(fd, 1036, &h);
    restored();
    h = 0;
    if (!r) CHECK(fcntl(fd, 1035, &h) == 0 && h == 2);
}

CASE(file_unlinked_dir_cwd) {
    mkdir("cw", 0755);
    chdir("cw");
    rmdir("../cw");
    restored();
    char b[500];
    CHECK(getcwd(b, 500) == 0 && errno == ENOENT);
}

CASE(file_name_deleted_suffix) {
    int fd = mk("x (deleted)", "still");
    restored();
    CHECK(write(fd, "y", 1) == 1);
    struct stat s;
    CHECK(stat("x (deleted)", &s) == 0 && s.st_size == 6);
}

CASE(file_lseek_hole_end) {
    int fd = mk("f", "0123");
    lseek(fd, 1000000, SEEK_SET);
    restored();
    CHECK(lseek(fd, 0, SEEK_CUR) == 1000000);
    write(fd, "x", 1);
    struct stat s;
    fstat(fd, &s);
    CHECK(s.st_size == 1000001);
}

CASE(fifo_data) {
    mkfifo("ff", 0600);
    int fd = open("ff", O_RDWR);
    write(fd, "queued", 6);
    restored();
    char b[7] = {0};
    CHECK(read(fd, b, 6) == 6 && !strcmp(b, "queued"));
}

CASE(fifo_two_ends) {
    mkfifo("ff", 0600);
    int r = open("ff", O_RDONLY | O_NONBLOCK), w = open("ff", O_WRONLY);
    write(w, "queued", 6);
    restored();
    char b[7] = {0};
    CHECK(read(r, b, 6) == 6 && !strcmp(b, "queued"));
    CHECK(read(r, b, 1) == -1 && errno == EAGAIN);
    close(w);
    CHECK(read(r, b, 1) == 0);
}

CASE(fifo_unlinked) {
    mkfifo("ff", 0600);
    int r = open("ff", O_RDONLY | O_NONBLOCK), w = open("ff", O_WRONLY);
    unlink("ff");
    write(w, "queued", 6);
    restored();
    char b[7] = {0};
    CHECK(read(r, b, 6) == 6 && !strcmp(b, "queued"));
    close(w);
    CHECK(read(r, b, 1) == 0);
}

CASE(file_memfd_exec) {
    int fd = memfd_create("x", 0x10 /* MFD_EXEC */);
    int g = memfd_create("y", 0x8 /* MFD_NOEXEC_SEAL */);
    struct stat a, b;
    if (fd >= 0) fstat(fd, &a);
    if (g >= 0) fstat(g, &b);
    int sa = fcntl(g, F_GET_SEALS);
    restored();
    struct stat c, d;
    if (fd >= 0) { fstat(fd, &c); CHECK((a.st_mode & 07777) == (c.st_mode & 07777)); } if (g >= 0) { fstat(g, &d); CHECK((b.st_mode & 07777) == (d.st_mode & 07777)); CHECK(fcntl(g, F_GET_SEALS) == sa); }
}

CASE(file_memfd_modes) {
    int fd = memfd_create("x", 0);
    write(fd, "abc", 3);
    char p[50];
    sprintf(p, "/proc/self/fd/%d", fd);
    int r = open(p, O_RDONLY);
    restored();
    CHECK(write(r, "x", 1) == -1 && errno == EBADF);
    pwrite(fd, "Z", 1, 0);
    char b;
    CHECK(read(r, &b, 1) == 1 && b == 'Z');
    CHECK(lseek(fd, 0, 1) == 3);
}

CASE(file_memfd_big) {
    int fd = memfd_create("x", 0);
    char *b = malloc(1 << 20);
    memset(b, 'q', 1 << 20);
    for (int i = 0; i < 24; i++) write(fd, b, 1 << 20);
    restored();
    char c;
    CHECK(pread(fd, &c, 1, (24 << 20) - 1) == 1 && c == 'q');
}

CASE(file_proc_task_comm) {
    char p[60];
    sprintf(p, "/proc/%d/task/%d/comm", getpid(), getpid());
    int fd = open(p, O_RDWR);
    restored();
    CHECK(write(fd, "renamed", 7) == 7);
    char n[20];
    prctl(PR_GET_NAME, n);
    CHECK(!strcmp(n, "renamed"));
}

CASE(file_memfd_holes_and_time) {
    int fd = memfd_create("holes", 0);
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    struct stat facts;
    CHECK(ftruncate(fd, 10 << 20) == 0 && pwrite(fd, "a", 1, 5 << 20) == 1 && futimens(fd, times) == 0);
    restored();
    CHECK(fstat(fd, &facts) == 0 && facts.st_size == 10 << 20 && facts.st_mtim.tv_sec == 2000 && facts.st_mtim.tv_nsec == 7);
    CHECK(lseek(fd, 0, SEEK_DATA) == 5 << 20);
    char c;
    CHECK(pread(fd, &c, 1, 5 << 20) == 1 && c == 'a' && pread(fd, &c, 1, (5 << 20) + 1) == 1 && c == 0);
}

CASE(file_deleted_time) {
    int fd = open("f", O_CREAT | O_RDWR | O_TRUNC, 0600);
    struct timespec times[2] = {{1000, 0}, {2000, 0}};
    struct stat facts;
    CHECK(write(fd, "abc", 3) == 3 && futimens(fd, times) == 0 && unlink("f") == 0);
    restored();
    CHECK(fstat(fd, &facts) == 0 && facts.st_size == 3 && facts.st_mtim.tv_sec == 2000);
}

CASE(file_owner_of_a_pipe) { /* who would be told, if O_ASYNC were set */
    int ends[2];
    struct f_owner_ex owner = {F_OWNER_TID, gettid()}, found;
    CHECK(pipe(ends) == 0 && fcntl(ends[0], F_SETOWN_EX, &owner) == 0 && fcntl(ends[1], F_SETSIG, SIGRTMIN + 2) == 0);
    restored();
    CHECK(fcntl(ends[0], F_GETOWN_EX, &found) == 0 && found.type == F_OWNER_TID && found.pid == gettid());
    CHECK(fcntl(ends[1], F_GETSIG) == SIGRTMIN + 2);
}

CASE(file_lease_signal) {
    close(open("f", O_CREAT | O_RDWR | O_TRUNC, 0600));
    int fd = open("f", O_RDONLY);
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 5);
    sigprocmask(SIG_BLOCK, &set, 0);
    CHECK(fcntl(fd, F_SETSIG, SIGRTMIN + 5) == 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0);
    restored();
    CHECK(fcntl(fd, F_GETSIG) == SIGRTMIN + 5);
    open("f", O_WRONLY | O_NONBLOCK); /* breaks the leases of all who have one */
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 5 && info.si_fd == fd);
}

static int open_pty(int *slave) { /* in raw mode */
    struct termios mode;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && (*slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    CHECK(tcgetattr(*slave, &mode) == 0);
    cfmakeraw(&mode);
    CHECK(tcsetattr(*slave, TCSANOW, &mode) == 0);
    return master;
}
CASE(file_pty_output_stopped) { /* as by Ctrl-S */
    int slave, master = open_pty(&slave);
    char c;
    CHECK(tcflow(slave, TCOOFF) == 0);
    restored();
    CHECK(fcntl(slave, F_SETFL, O_NONBLOCK) == 0 && write(slave, "x", 1) == -1 && errno == EAGAIN);
    CHECK(tcflow(slave, TCOON) == 0 && write(slave, "x", 1) == 1 && read(master, &c, 1) == 1 && c == 'x');
}
CASE(file_pty_exclusive) {
    int slave, value = 0;
    open_pty(&slave);
    CHECK(ioctl(slave, TIOCEXCL) == 0);
    restored();
    CHECK(ioctl(slave, TIOCGEXCL, &value) == 0 && value == 1);
}

CASE(file_without_permission) {
    int fd = open("none", O_RDWR | O_CREAT | O_EXCL, 0000), other = open("read", O_RDWR | O_CREAT | O_EXCL, 0400);
    CHECK(fd >= 0 && other >= 0 && write(fd, "content", 7) == 7 && write(other, "more", 4) == 4);
    char *p = mmap(0, 4096, RW, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    p[0] = 'C';
    restored();
    char b[8] = {0};
    CHECK(pread(fd, b, 7, 0) == 7 && !strcmp(b, "Content") && !strcmp(p, "Content"));
    CHECK(write(other, "x", 1) == 1 && pread(other, b, 5, 0) == 5);
}

CASE(file_names) {
    /* a line of /proc/PID/maps ends with the name */
    CHECK(!mkdir("of \n two lines (deleted)", 0700) && !chdir("of \n two lines (deleted)"));
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    int fd = open("quoted \"\t'\n\\ \xe9", O_RDWR | O_CREAT, 0600), longest = open(name, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && longest >= 0 && write(fd, "abc", 3) == 3 && write(longest, "12", 2) == 2);
    char *p = mmap(0, 4096, RW, MAP_SHARED, fd, 0), here[600];
    CHECK(p != MAP_FAILED);
    restored();
    CHECK(p[1] == 'b' && lseek(longest, 0, SEEK_CUR) == 2 && lseek(fd, 0, SEEK_CUR) == 3);
    CHECK(getcwd(here, sizeof here) && strstr(here, "/of \n two lines (deleted)"));
}
