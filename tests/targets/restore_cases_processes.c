/* Processes: what they are, and their families. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <sys/personality.h>
#include <grp.h>

CASE(proc_zombie_statuses) {
    pid_t a = fork();
    if (!a) _exit(33);
    pid_t b = fork();
    if (!b) {
        raise(SIGKILL);
    }
    until_ended(a);
    until_ended(b);
    restored();
    int st;
    CHECK(waitpid(b, &st, 0) == b && WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
    CHECK(waitpid(a, &st, 0) == a && WEXITSTATUS(st) == 33);
    CHECK(wait(0) == -1 && errno == ECHILD);
}

CASE(proc_session_child) {
    pid_t c = fork();
    if (!c) {
        setsid();
        pause();
    }
    until_in_call(c, SYS_pause);
    CHECK(getsid(c) == c);
    restored();
    CHECK(getsid(c) == c && getpgid(c) == c && getsid(0) != c);
    kill(c, 9);
}

CASE(proc_group_child) {
    pid_t c = fork();
    if (!c) {
        setpgid(0, 0);
        pause();
    }
    until_in_call(c, SYS_pause);
    restored();
    CHECK(getpgid(c) == c && getsid(c) == getsid(0));
    kill(-c, SIGTERM);
    int st;
    CHECK(waitpid(c, &st, 0) == c && WTERMSIG(st) == SIGTERM);
}

CASE(proc_umask_cwd) {
    umask(027);
    mkdir("sub", 0755);
    chdir("sub");
    restored();
    CHECK(umask(0) == 027);
    char b[500];
    CHECK(getcwd(b, 500) && strstr(b, "/sub"));
}

CASE(proc_limits) {
    struct rlimit r = {100, 200}, o;
    setrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = 0;
    r.rlim_max = RLIM_INFINITY;
    setrlimit(RLIMIT_CORE, &r);
    r.rlim_cur = 123 << 20;
    r.rlim_max = 456 << 20;
    setrlimit(RLIMIT_STACK, &r);
    struct rlimit before[16];
    for (int i = 0; i < 16; i++) getrlimit(i, before + i);
    restored();
    for (int i = 0; i < 16; i++) {
        getrlimit(i, &o);
        CHECK(o.rlim_cur == before[i].rlim_cur && o.rlim_max == before[i].rlim_max);
    }
}

CASE(proc_nice) {
    int r = setpriority(PRIO_PROCESS, 0, 7);
    restored();
    CHECK(r || getpriority(PRIO_PROCESS, 0) == 7);
}

CASE(proc_subreaper) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    restored();
    int v = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &v);
    CHECK(v == 1);
}

CASE(proc_no_new_privs) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    restored();
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
}

CASE(proc_dumpable) {
    prctl(PR_SET_DUMPABLE, 0);
    restored();
    CHECK(prctl(PR_GET_DUMPABLE) == 0);
}

CASE(proc_dumpable_default) {
    int d = prctl(PR_GET_DUMPABLE);
    restored();
    CHECK(prctl(PR_GET_DUMPABLE) == d);
}

CASE(proc_personality) {
    personality(ADDR_NO_RANDOMIZE);
    restored();
    CHECK(personality(0xffffffff) == ADDR_NO_RANDOMIZE);
}

CASE(proc_oom) {
    int f = open("/proc/self/oom_score_adj", O_RDWR);
    write(f, "321", 3);
    close(f);
    restored();
    char b[9] = {0};
    f = open("/proc/self/oom_score_adj", O_RDONLY);
    read(f, b, 8);
    CHECK(atoi(b) == 321);
}

CASE(proc_coredump_filter) {
    int f = open("/proc/self/coredump_filter", O_RDWR);
    write(f, "0x7f", 4);
    close(f);
    restored();
    char b[20] = {0};
    f = open("/proc/self/coredump_filter", O_RDONLY);
    read(f, b, 19);
    CHECK(strtol(b, 0, 16) == 0x7f);
}

CASE(proc_thp) {
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    restored();
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
}

CASE(proc_keepcaps) {
    prctl(PR_SET_KEEPCAPS, 1);
    restored();
    CHECK(prctl(PR_GET_KEEPCAPS) == 1);
}

CASE(proc_securebits) {
    int r = prctl(PR_SET_SECUREBITS, 1 << 2 | 1 << 0);
    restored();
    if (!r) CHECK(prctl(PR_GET_SECUREBITS) == (1 << 2 | 1 << 0));
}

CASE(proc_capabilities) {
    char a[100], b[100], c[100], d[100];
    prctl(PR_CAPBSET_DROP, 22);
    struct { uint32_t v; int p; } h = {0x20080522, 0};
    uint32_t x[6];
    syscall(SYS_capget, &h, x);
    x[0] &= ~(1u << 21);
    syscall(SYS_capset, &h, x);
    status_line("CapEff", a, 100);
    status_line("CapBnd", b, 100);
    restored();
    status_line("CapEff", c, 100);
    status_line("CapBnd", d, 100);
    CHECK(!strcmp(a, c));
    CHECK(!strcmp(b, d));
}

CASE(proc_uids) {
    gid_t g[2] = {7, 9};
    int r = setgroups(2, g) || setresgid(11, 12, 13) || setresuid(21, 22, 23);
    restored();
    if (!r) {
        uid_t a, b, c;
        getresuid(&a, &b, &c);
        CHECK(a == 21 && b == 22 && c == 23);
        getresgid(&a, &b, &c);
        CHECK(a == 11 && b == 12 && c == 13);
        gid_t k[5];
        CHECK(getgroups(5, k) == 2 && k[0] == 7 && k[1] == 9);
    }
}

CASE(proc_pdeathsig_self) {
    prctl(PR_SET_PDEATHSIG, SIGUSR2);
    restored();
    int v = 0;
    prctl(PR_GET_PDEATHSIG, &v);
    CHECK(v == SIGUSR2);
}

CASE(proc_orphan) {
    int p[2];
    pipe(p);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t c = fork();
    if (!c) {
        pid_t d = fork();
        if (!d) pause();
        write(p[1], &d, 4);
        _exit(0);
    }
    waitpid(c, 0, 0);
    pid_t d;
    read(p[0], &d, 4);
    until_in_call(d, SYS_pause);
    restored();
    kill(d, SIGTERM);
    int st;
    CHECK(waitpid(d, &st, 0) == d && WTERMSIG(st) == SIGTERM);
}

CASE(proc_chroot) {
    mkdir("jail", 0755);
    int r = chroot("jail");
    if (!r) chdir("/");
    restored();
    if (!r) {
        CHECK(access("/tmp", F_OK) == -1);
        mkdir("/inside", 0755);
        CHECK(access("/inside", F_OK) == 0);
    }
}

CASE(proc_wait_flags) {
    int p[2];
    pipe(p);
    pid_t c = fork();
    if (!c) {
        char b;
        raise(SIGSTOP);
        read(p[0], &b, 1);
        _exit(3);
    }
    int st;
    CHECK(waitpid(c, &st, WUNTRACED) == c);
    restored();
    kill(c, SIGCONT);
    CHECK(waitpid(c, &st, WCONTINUED) == c && WIFCONTINUED(st));
    CHECK(write(p[1], "", 1) == 1);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 3);
}

CASE(proc_env) {
    setenv("ADDED", "later", 1);
    restored();
    CHECK(!strcmp(getenv("ADDED"), "later") && getenv("PATH"));
}

CASE(proc_exec_after) {
    restored();
    pid_t c = fork();
    if (!c) {
        execl("/bin/sh", "sh", "-c", "exit 17", (char *)0);
        _exit(1);
    }
    int st;
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 17);
    FILE *f = popen("echo hi", "r");
    char b[9] = {0};
    CHECK(fgets(b, 9, f) && !strcmp(b, "hi\n"));
    pclose(f);
}

CASE(proc_mdwe) {
    int r = prctl(65, 1, 0, 0, 0);
    restored();
    if (!r) CHECK(prctl(66, 0, 0, 0, 0) == 1);
}

CASE(proc_comm) {
    prctl(PR_SET_NAME, "other name");
    restored();
    char n[17];
    prctl(PR_GET_NAME, n);
    CHECK(!strcmp(n, "other name"));
}

CASE(proc_exit_signal) {
    signal(SIGUSR1, SIG_IGN);
    pid_t c = syscall(SYS_clone, SIGUSR1, 0, 0, 0, 0);
    if (!c) pause();
    until_in_call(c, SYS_pause);
    restored();
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR1);
    signal(SIGUSR1, SIG_DFL);
    sigprocmask(SIG_BLOCK, &m, 0);
    kill(c, 9);
    siginfo_t i;
    CHECK(sigwaitinfo(&m, &i) == SIGUSR1 && i.si_pid == c);
    int st;
    CHECK(waitpid(c, &st, __WALL) == c);
}

CASE(proc_session_whose_leader_is_gone) {
    int to[2], from[2], before[2], after[2], leader, zombie;
    char byte;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 && pipe(to) == 0 && pipe(from) == 0);
    for (int i = 0; i < 2; i++) {
        if (!(leader = fork())) {
            setsid();
            if (fork()) _exit(3);
            for (int k = 0; k < 2; k++) {
                int ids[2] = {getsid(0), getpgrp()};
                CHECK(write(from[1], ids, sizeof ids) == sizeof ids && (k || read(to[0], &byte, 1) == 1));
            }
            _exit(0);
        }
        if (i) break;
        zombie = leader;
        CHECK(read(from[0], before, sizeof before) == sizeof before && before[0] == leader && before[1] == leader);
        siginfo_t info;
        CHECK(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0);
    }
    CHECK(waitpid(leader, 0, 0) == leader && read(from[0], before, sizeof before) == sizeof before && before[0] == leader);
    restored();
    CHECK(write(to[1], "xx", 2) == 2);
    for (int i = 0; i < 2; i++) {
        CHECK(read(from[0], after, sizeof after) == sizeof after && after[0] == after[1] && (after[0] == leader || after[0] == zombie));
        CHECK(i == 0 || after[0] != before[0]);
        before[0] = after[0];
    }
    int status;
    CHECK(waitpid(zombie, &status, 0) == zombie && WEXITSTATUS(status) == 3);
}

CASE(proc_host_name) {
    char name[100];
    if (unshare(CLONE_NEWUTS)) { restored(); return; } /* needs privilege */
    CHECK(sethostname("elsewhere", 9) == 0 && setdomainname("domain", 6) == 0);
    restored();
    CHECK(gethostname(name, sizeof name) == 0 && !strcmp(name, "elsewhere") && getdomainname(name, sizeof name) == 0 && !strcmp(name, "domain"));
}

static int autogroup_nice(void) { /* -100: a kernel without autogroups */
    int nice = -100;
    FILE *f = fopen("/proc/self/autogroup", "r");
    if (f) { if (fscanf(f, "/autogroup-%*d nice %d", &nice) != 1) nice = -100; fclose(f); }
    return nice;
}
CASE(proc_autogroup_nice) {
    CHECK(setsid() > 0);
    int fd = -1, before = autogroup_nice();
    if (before != -100) {
        CHECK((fd = open("/proc/self/autogroup", O_WRONLY)) >= 0);
        while (write(fd, "7", 1) != 1) { CHECK(errno == EAGAIN); usleep(20000); } /* all users together may do it ten times a second */
        close(fd);
        CHECK(autogroup_nice() == 7);
    }
    restored();
    CHECK(fd < 0 || autogroup_nice() == 7);
}

CASE(proc_thp_except_advised) {
    int has = prctl(PR_SET_THP_DISABLE, 1, 2 /* PR_THP_DISABLE_EXCEPT_ADVISED, Linux 6.18 */, 0, 0) == 0;
    int value = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    restored();
    CHECK(!has || prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == value);
}

CASE(proc_futex_hash) {
    int has = prctl(78 /* PR_FUTEX_HASH, Linux 6.16 */, 1, 16, 0, 0) == 0;
    restored();
    CHECK(!has || prctl(78, 2, 0, 0, 0) == 16);
}

static void wait_for_byte(int fd) { char b; if (read(fd, &b, 1) != 1) _exit(9); }

CASE(proc_shares_descriptors) {
    /* clone(2) with CLONE_FILES: a process of its own, not a thread */
    int orders[2], answers[2], status;
    CHECK(!pipe(orders) && !pipe(answers));
    pid_t files = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (!files) {
        wait_for_byte(orders[0]);
        dup2(orders[0], 200);
        write(answers[1], "f", 1);
        wait_for_byte(orders[0]);
        _exit(0);
    }
    restored();
    CHECK(fcntl(200, F_GETFD) == -1 && write(orders[1], "x", 1) == 1);
    wait_for_byte(answers[0]);
    CHECK(fcntl(200, F_GETFD) == 0 && write(orders[1], "x", 1) == 1 && waitpid(files, &status, 0) == files && !status);
}

CASE(proc_shares_directory) {
    int orders[2], status;
    char here[500];
    CHECK(!pipe(orders) && !mkdir("folder", 0700));
    pid_t child = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
    if (!child) {
        wait_for_byte(orders[0]);
        umask(0123);
        _exit(chdir("folder"));
    }
    restored();
    CHECK(write(orders[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && !status);
    CHECK(getcwd(here, sizeof here) && strlen(here) > 7 && !strcmp(here + strlen(here) - 7, "/folder") && umask(0) == 0123);
}

CASE(proc_limits_below_use) {
    static const struct { int resource; rlim_t value; } limits[] = {
        {RLIMIT_NOFILE, 100}, {RLIMIT_FSIZE, 5}, {RLIMIT_MEMLOCK, 0}, {RLIMIT_SIGPENDING, 0}, {RLIMIT_NPROC, 0}, {RLIMIT_STACK, 1 << 16},
        {RLIMIT_MSGQUEUE, 0},
    };
    int fd = open("f", O_RDWR | O_CREAT, 0600), orders[2], status;
    CHECK(fd >= 0 && dup2(fd, 500) == 500 && write(fd, "0123456789", 10) == 10 && !pipe(orders));
    CHECK(!mlock(map(1 << 16, RW, ANON), 4096));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(!sigprocmask(SIG_BLOCK, &set, 0));
    for (int i = 0; i < 5; i++) CHECK(!sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}));
    timer_t timer;
    CHECK(!timer_create(CLOCK_MONOTONIC, 0, &timer));
    pid_t child = fork();
    if (!child) { wait_for_byte(orders[0]); _exit(5); }
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit = {limits[i].value, limits[i].value};
        CHECK(!setrlimit(limits[i].resource, &limit));
    }
    restored();
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        CHECK(!getrlimit(limits[i].resource, &limit) && limit.rlim_cur == limits[i].value && limit.rlim_max == limits[i].value);
    }
    CHECK(fcntl(500, F_GETFD) == 0 && !timer_delete(timer));
    for (int i = 0; i < 5; i++) {
        siginfo_t info;
        struct timespec at_once = {0, 0};
        CHECK(sigtimedwait(&set, &info, &at_once) == SIGRTMIN && info.si_value.sival_int == i);
    }
    CHECK(write(orders[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);
}

CASE(proc_names) {
    /* /proc/PID/stat has the name between parentheses */
    int orders[2], answers[2], status;
    char name[17] = "";
    CHECK(!pipe(orders) && !pipe(answers) && !prctl(PR_SET_NAME, ") R 1 (\n\\x"));
    pid_t child = fork();
    if (!child) {
        char own[17] = "other";
        prctl(PR_SET_NAME, "");
        write(answers[1], "n", 1);
        wait_for_byte(orders[0]);
        prctl(PR_GET_NAME, own);
        _exit(*own ? 4 : 3);
    }
    wait_for_byte(answers[0]);
    restored();
    prctl(PR_GET_NAME, name);
    CHECK(!strcmp(name, ") R 1 (\n\\x") && write(orders[1], "x", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
}

CASE(proc_group_of_the_dead) {
    int orders[2], status;
    CHECK(!pipe(orders));
    pid_t leader = fork();
    if (!leader) { wait_for_byte(orders[0]); _exit(0); }
    CHECK(!setpgid(leader, leader));
    pid_t member = fork();
    if (!member) { wait_for_byte(orders[0]); _exit(getpgrp() == leader ? 3 : 4); }
    CHECK(!setpgid(member, leader) && !kill(leader, SIGKILL) && waitpid(leader, 0, 0) == leader);
    restored();
    CHECK(getpgid(member) == leader && write(orders[1], "x", 1) == 1);
    CHECK(waitpid(member, &status, 0) == member && WEXITSTATUS(status) == 3);
}
