/* Signals, timers, registers. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <ucontext.h>
#include <immintrin.h>
static volatile sig_atomic_t hits; static siginfo_t last; static int order[50], values[50];
static void on(int s, siginfo_t *i, void *u) {
    if (hits < 50) {
        order[hits] = s;
        values[hits] = i->si_value.sival_int;
    }
    last = *i;
    hits++;
}
static void plain(int s) {
    hits++;
}
static void handle(int s, int flags) {
    struct sigaction a = {0};
    a.sa_sigaction = on;
    a.sa_flags = SA_SIGINFO | flags;
    CHECK(!sigaction(s, &a, 0));
}
static sigset_t set1(int s) {
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, s);
    return m;
}
static void block(int s) {
    sigset_t m = set1(s);
    CHECK(!sigprocmask(SIG_BLOCK, &m, 0));
}
static void unblock(int s) {
    sigset_t m = set1(s);
    CHECK(!sigprocmask(SIG_UNBLOCK, &m, 0));
}

CASE(sig_handlers) {
    struct sigaction a = {0}, b;
    a.sa_handler = plain;
    a.sa_flags = SA_NODEFER | SA_RESTART | SA_ONSTACK;
    sigaddset(&a.sa_mask, SIGUSR2);
    sigaddset(&a.sa_mask, SIGRTMIN + 5);
    sigaction(SIGUSR1, &a, 0);
    signal(SIGHUP, SIG_IGN);
    struct sigaction c = {0};
    c.sa_handler = plain;
    c.sa_flags = SA_RESETHAND | SA_NOCLDSTOP;
    sigaction(SIGCHLD, &c, 0);
    restored();
    sigaction(SIGUSR1, 0, &b);
    CHECK(b.sa_handler == plain && (b.sa_flags & (SA_NODEFER | SA_RESTART | SA_ONSTACK)) == (SA_NODEFER | SA_RESTART | SA_ONSTACK) && sigismember(&b.sa_mask, SIGUSR2) && sigismember(&b.sa_mask, SIGRTMIN + 5) && !sigismember(&b.sa_mask, SIGTERM));
    sigaction(SIGHUP, 0, &b);
    CHECK(b.sa_handler == SIG_IGN);
    sigaction(SIGCHLD, 0, &b);
    CHECK(b.sa_flags & SA_RESETHAND && b.sa_flags & SA_NOCLDSTOP);
    raise(SIGUSR1);
    CHECK(hits == 1);
}

CASE(sig_trap_handler) {
    signal(SIGTRAP, plain);
    restored();
    raise(SIGTRAP);
    CHECK(hits == 1);
    __asm__ volatile("int3");
    CHECK(hits == 2);
}

CASE(sig_trap_blocked) {
    signal(SIGTRAP, plain);
    block(SIGTRAP);
    raise(SIGTRAP);
    restored();
    CHECK(hits == 0);
    unblock(SIGTRAP);
    CHECK(hits == 1);
}

CASE(sig_pending_standard) {
    block(SIGUSR1);
    handle(SIGUSR1, 0);
    kill(getpid(), SIGUSR1);
    restored();
    CHECK(!hits);
    unblock(SIGUSR1);
    CHECK(hits == 1 && last.si_code == SI_USER && last.si_pid == getpid() && last.si_uid == getuid());
}

CASE(sig_pending_rt_order) {
    block(SIGRTMIN + 1);
    block(SIGRTMIN + 2);
    handle(SIGRTMIN + 1, 0);
    handle(SIGRTMIN + 2, 0);
    union sigval v;
    for (int i = 0; i < 10; i++) {
        v.sival_int = i;
        sigqueue(getpid(), SIGRTMIN + 1 + i % 2, v);
    }
    restored();
    sigset_t m = set1(SIGRTMIN + 1);
    sigaddset(&m, SIGRTMIN + 2);
    siginfo_t in;
    struct timespec z = {0};
    for (int i = 0; i < 5; i++) {
        CHECK(sigtimedwait(&m, &in, &z) == SIGRTMIN + 1 && in.si_value.sival_int == 2 * i && in.si_code == SI_QUEUE && in.si_pid == getpid());
    }
    for (int i = 0; i < 5; i++) {
        CHECK(sigtimedwait(&m, &in, &z) == SIGRTMIN + 2 && in.si_value.sival_int == 2 * i + 1);
    }
    CHECK(sigtimedwait(&m, &in, &z) == -1);
}

CASE(sig_pending_thread) {
    block(SIGUSR2);
    handle(SIGUSR2, 0);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2);
    restored();
    sigset_t p;
    sigpending(&p);
    CHECK(sigismember(&p, SIGUSR2));
    char t[100];
    CHECK(status_line("SigPnd", t, 100) && strtoul(t, 0, 16) == 1ul << (SIGUSR2 - 1));
    unblock(SIGUSR2);
    CHECK(hits == 1 && last.si_code == SI_TKILL);
}

CASE(sig_pending_sigstop_cont) {
    block(SIGCONT);
    handle(SIGCONT, 0);
    kill(getpid(), SIGCONT);
    restored();
    unblock(SIGCONT);
    CHECK(hits == 1);
}

CASE(sig_pending_default_ignored) {
    block(SIGURG);
    block(SIGWINCH);
    kill(getpid(), SIGURG);
    kill(getpid(), SIGWINCH);
    restored();
    sigset_t p;
    sigpending(&p);
    CHECK(sigismember(&p, SIGURG) && sigismember(&p, SIGWINCH));
}

CASE(sig_pending_sigchld) {
    block(SIGCHLD);
    handle(SIGCHLD, 0);
    pid_t c = fork();
    if (!c) _exit(3);
    siginfo_t w;
    waitid(P_PID, c, &w, WEXITED | WNOWAIT);
    restored();
    unblock(SIGCHLD);
    CHECK(hits == 1 && last.si_pid == c && last.si_status == 3 && last.si_code == CLD_EXITED);
    int st;
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 3);
}

CASE(sig_pending_many) {
    block(SIGRTMIN);
    union sigval v;
    for (int i = 0; i < 1000; i++) {
        v.sival_int = i * 7;
        CHECK(!sigqueue(getpid(), SIGRTMIN, v));
    }
    restored();
    sigset_t m = set1(SIGRTMIN);
    siginfo_t in;
    for (int i = 0; i < 1000; i++) CHECK(sigwaitinfo(&m, &in) == SIGRTMIN && in.si_value.sival_int == i * 7);
}

CASE(sig_pending_fault_info) {
    block(SIGRTMIN + 4);
    siginfo_t in = {0};
    in.si_signo = SIGRTMIN + 4;
    in.si_code = -60;
    in.si_value.sival_int = 99;
    syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN + 4, &in);
    restored();
    sigset_t m = set1(SIGRTMIN + 4);
    CHECK(sigwaitinfo(&m, &in) == SIGRTMIN + 4 && in.si_code == -60 && in.si_value.sival_int == 99);
}

CASE(sig_altstack) {
    static char st[65536];
    stack_t s = {.ss_sp = st, .ss_size = sizeof st}, o;
    sigaltstack(&s, 0);
    restored();
    CHECK(!sigaltstack(0, &o) && o.ss_sp == st && o.ss_size == sizeof st && o.ss_flags == 0);
}

CASE(sig_altstack_autodisarm) {
    static char st[65536];
    stack_t s = {.ss_sp = st, .ss_size = sizeof st, .ss_flags = 1u << 31}, o;
    sigaltstack(&s, 0);
    restored();
    CHECK(!sigaltstack(0, &o) && o.ss_sp == st && o.ss_flags == (int)(1u << 31));
}
static void waiter(int s, siginfo_t *i, void *u) {
    char st;
    stack_t o;
    restored();
    sigaltstack(0, &o);
    CHECK(o.ss_flags & SS_ONSTACK);
    CHECK((char *)o.ss_sp <= &st && &st < (char *)o.ss_sp + o.ss_size);
    hits++;
}

CASE(sig_inside_handler_on_altstack) {
    static char st[65536];
    stack_t s = {.ss_sp = st, .ss_size = sizeof st}, o;
    sigaltstack(&s, 0);
    struct sigaction a = {0};
    a.sa_sigaction = waiter;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGUSR1, &a, 0);
    raise(SIGUSR1);
    CHECK(hits == 1);
    sigset_t m;
    sigprocmask(0, 0, &m);
    CHECK(!sigismember(&m, SIGUSR1));
    sigaltstack(0, &o);
    CHECK(!(o.ss_flags & SS_ONSTACK));
}

CASE(sig_sigsuspend) {
    block(SIGUSR1);
    handle(SIGUSR1, 0);
    pid_t c = fork();
    if (!c) {
        sigset_t m;
        sigemptyset(&m);
        sigsuspend(&m);
        sigprocmask(0, 0, &m);
        _exit(hits == 1 && sigismember(&m, SIGUSR1) ? 9 : 1);
    }
    until_in_call(c, SYS_rt_sigsuspend);
    restored();
    int st;
    CHECK(waitpid(c, &st, WNOHANG) == 0);
    kill(c, SIGUSR1);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 9);
}

CASE(sig_pause) {
    handle(SIGUSR1, 0);
    pid_t c = fork();
    if (!c) {
        int r = pause();
        _exit(r == -1 && errno == EINTR && hits == 1 ? 9 : 1);
    }
    until_in_call(c, SYS_pause);
    restored();
    int st;
    CHECK(waitpid(c, &st, WNOHANG) == 0);
    kill(c, SIGUSR1);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 9);
}

CASE(sig_stopped_child) {
    pid_t c = fork();
    if (!c) {
        raise(SIGSTOP);
        _exit(4);
    }
    int st;
    CHECK(waitpid(c, &st, WUNTRACED) == c && WIFSTOPPED(st));
    restored();
    CHECK(waitpid(c, &st, WNOHANG | WUNTRACED) == 0 || WIFSTOPPED(st));
    char p[50], b[200] = {0};
    sprintf(p, "/proc/%d/stat", c);
    int fd = open(p, 0);
    read(fd, b, 199);
    CHECK(strstr(b, ") T"));
    kill(c, SIGCONT);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 4);
}

CASE(sig_stopped_child_unwaited) {
    pid_t c = fork();
    if (!c) {
        raise(SIGSTOP);
        _exit(4);
    }
    siginfo_t stopped;
    CHECK(waitid(P_PID, c, &stopped, WSTOPPED | WNOWAIT) == 0);
    restored();
    int st;
    CHECK(waitpid(c, &st, WUNTRACED) == c && WIFSTOPPED(st) && WSTOPSIG(st) == SIGSTOP);
    kill(c, SIGCONT);
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 4);
}

CASE(sig_signalfd_pending) {
    block(SIGRTMIN + 2);
    sigset_t m = set1(SIGRTMIN + 2);
    int fd = signalfd(-1, &m, SFD_NONBLOCK | SFD_CLOEXEC);
    union sigval v = {.sival_int = 5};
    sigqueue(getpid(), SIGRTMIN + 2, v);
    restored();
    struct signalfd_siginfo i;
    CHECK(read(fd, &i, sizeof i) == sizeof i && i.ssi_int == 5 && i.ssi_code == SI_QUEUE);
    CHECK(read(fd, &i, sizeof i) == -1 && errno == EAGAIN);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
}

CASE(itimer_real_fires) {
    handle(SIGALRM, SA_RESTART);
    struct itimerval t = {{0, 50000}, {0, 400000}};
    setitimer(ITIMER_REAL, &t, 0);
    restored();
    int64_t s = now_ns();
    while (hits < 3 && now_ns() - s < 20000000000ll) usleep(10000);
    CHECK(hits >= 3);
}

CASE(itimer_virtual_prof) {
    handle(SIGVTALRM, 0);
    handle(SIGPROF, 0);
    struct itimerval t = {{5, 0}, {100, 500000}}, o;
    setitimer(ITIMER_VIRTUAL, &t, 0);
    setitimer(ITIMER_PROF, &t, 0);
    restored();
    getitimer(ITIMER_VIRTUAL, &o);
    CHECK(o.it_value.tv_sec == 100 && o.it_interval.tv_sec == 5);
    getitimer(ITIMER_PROF, &o);
    CHECK((o.it_value.tv_sec == 100 || o.it_value.tv_sec == 99) && o.it_interval.tv_sec == 5);
}

CASE(alarm_remaining) {
    alarm(100);
    restored();
    unsigned r = alarm(0);
    CHECK(r >= 50 && r <= 100);
}

CASE(ptimer_ids) {
    timer_t a, b, c;
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = SIGRTMIN;
    e.sigev_value.sival_int = 11;
    int ids[3];
    syscall(SYS_timer_create, CLOCK_MONOTONIC, &e, &ids[0]);
    syscall(SYS_timer_create, CLOCK_REALTIME, &e, &ids[1]);
    e.sigev_value.sival_int = 33;
    syscall(SYS_timer_create, CLOCK_BOOTTIME, &e, &ids[2]);
    syscall(SYS_timer_delete, ids[1]);
    struct itimerspec s = {{3, 7}, {50, 0}}, o;
    syscall(SYS_timer_settime, ids[0], 0, &s, 0);
    s.it_value.tv_nsec = 100000000;
    s.it_value.tv_sec = 0;
    block(SIGRTMIN);
    restored();
    CHECK(!syscall(SYS_timer_gettime, ids[0], &o) && o.it_interval.tv_sec == 3 && o.it_interval.tv_nsec == 7 && o.it_value.tv_sec >= 20 && o.it_value.tv_sec < 50);
    CHECK(syscall(SYS_timer_gettime, ids[1], &o) == -1 && errno == EINVAL);
    CHECK(!syscall(SYS_timer_settime, ids[2], 0, &s, 0));
    sigset_t m = set1(SIGRTMIN);
    siginfo_t in;
    CHECK(sigwaitinfo(&m, &in) == SIGRTMIN && in.si_value.sival_int == 33 && in.si_code == SI_TIMER && in.si_timerid == ids[2]);
}

CASE(ptimer_pending_oneshot) {
    block(SIGRTMIN);
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = SIGRTMIN;
    e.sigev_value.sival_int = 11;
    timer_t t;
    timer_create(CLOCK_MONOTONIC, &e, &t);
    struct itimerspec s = {{0, 0}, {0, 10000000}}, o;
    timer_settime(t, 0, &s, 0);
    usleep(30000);
    restored();
    sigset_t m = set1(SIGRTMIN);
    siginfo_t in;
    struct timespec w = {20, 0};
    CHECK(sigtimedwait(&m, &in, &w) == SIGRTMIN && in.si_value.sival_int == 11 && in.si_code == SI_TIMER);
    CHECK(!timer_gettime(t, &o) && !o.it_value.tv_sec && !o.it_value.tv_nsec);
    s.it_value.tv_nsec = 1000;
    CHECK(!timer_settime(t, 0, &s, 0));
    CHECK(sigtimedwait(&m, &in, &w) == SIGRTMIN);
}

CASE(ptimer_absolute) {
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_NONE;
    timer_t t;
    timer_create(CLOCK_REALTIME, &e, &t);
    struct itimerspec s = {0}, o;
    clock_gettime(CLOCK_REALTIME, &s.it_value);
    s.it_value.tv_sec += 100;
    timer_settime(t, TIMER_ABSTIME, &s, 0);
    restored();
    CHECK(!timer_gettime(t, &o) && o.it_value.tv_sec >= 30 && o.it_value.tv_sec < 100);
}

CASE(ptimer_cpu) {
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_NONE;
    timer_t t, u;
    timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t);
    timer_create(CLOCK_THREAD_CPUTIME_ID, &e, &u);
    struct itimerspec s = {{1, 0}, {100, 0}}, o;
    timer_settime(t, 0, &s, 0);
    timer_settime(u, 0, &s, 0);
    restored();
    CHECK(!timer_gettime(t, &o) && o.it_value.tv_sec >= 98 && o.it_interval.tv_sec == 1);
    CHECK(!timer_gettime(u, &o) && o.it_value.tv_sec >= 98);
}

CASE(ptimer_fires_periodic) {
    block(SIGRTMIN + 3);
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = SIGRTMIN + 3;
    timer_t t;
    timer_create(CLOCK_MONOTONIC, &e, &t);
    struct itimerspec s = {{0, 30000000}, {0, 600000000}};
    timer_settime(t, 0, &s, 0);
    restored();
    sigset_t m = set1(SIGRTMIN + 3);
    siginfo_t in;
    struct timespec w = {20, 0};
    for (int i = 0; i < 3; i++) CHECK(sigtimedwait(&m, &in, &w) == SIGRTMIN + 3);
}
static int tnot;
static void tn(union sigval v) {
    tnot = v.sival_int;
}

CASE(ptimer_thread_notify) {
    struct sigevent e = {0};
    e.sigev_notify = SIGEV_THREAD;
    e.sigev_notify_function = tn;
    e.sigev_value.sival_int = 66;
    timer_t t;
    timer_create(CLOCK_MONOTONIC, &e, &t);
    struct itimerspec s = {{0, 0}, {0, 500000000}};
    timer_settime(t, 0, &s, 0);
    restored();
    int64_t st = now_ns();
    while (!tnot && now_ns() - st < 20000000000ll) usleep(10000);
    CHECK(tnot == 66);
}

CASE(timerfd_cancel_on_set) {
    int fd = timerfd_create(CLOCK_REALTIME, 0);
    struct itimerspec s = {0}, o;
    clock_gettime(CLOCK_REALTIME, &s.it_value);
    s.it_value.tv_sec += 100;
    CHECK(!timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &s, 0));
    restored();
    char p[50], b[300] = {0};
    sprintf(p, "/proc/self/fdinfo/%d", fd);
    read(open(p, 0), b, 299);
    CHECK(strstr(b, "settime flags: 03"));
}

CASE(timerfd_ticks) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec s = {{0, 10000000}, {0, 10000000}};
    timerfd_settime(fd, 0, &s, 0);
    usleep(105000);
    struct itimerspec z = {0};
    uint64_t v;
    restored();
    CHECK(read(fd, &v, 8) == 8);
    CHECK(v >= 10);
}

CASE(timerfd_expired_once) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec s = {{0, 0}, {0, 1000}};
    timerfd_settime(fd, 0, &s, 0);
    usleep(1000);
    restored();
    uint64_t v;
    CHECK(read(fd, &v, 8) == 8 && v == 1);
    CHECK(read(fd, &v, 8) == -1);
}

CASE(x87_state) {
    unsigned short cw = 0x027f | 0x0c00, got;
    unsigned int mx = 0x1f80 | 0x6000 | 0x8000, gm;
    __asm__ volatile("fldcw %0; ldmxcsr %1; fldpi; fldl2e" :: "m"(cw), "m"(mx));
    restored();
    long double a, b;
    __asm__ volatile("fstpt %0; fstpt %1; fnstcw %2; stmxcsr %3" : "=m"(a), "=m"(b), "=m"(got), "=m"(gm));
    unsigned short d = 0x037f;
    unsigned int m = 0x1f80;
    __asm__ volatile("fldcw %0; ldmxcsr %1" :: "m"(d), "m"(m));
    CHECK(got == cw && (gm & ~0x3f) == mx);
    CHECK(b > 3.14159 && b < 3.1416 && a > 1.4426 && a < 1.4427);
}
static long rd(void *b) {
    register long r __asm__("rax");
    __asm__ volatile("syscall" : "=a"(r) : "a"(0), "D"(0), "S"(b), "d"(100) : "rcx", "r11", "memory");
    return r;
}
__attribute__((target("avx"))) static int avx(void) { static float in[64], out[64]; for (int i = 0; i < 64; i++) in[i] = i * 1.5f; static char buf[100]; printf("ready\n"); fflush(stdout); long r; __asm__ volatile("vmovups %[i0], %%ymm0; vmovups %[i1], %%ymm7; vmovups %[i2], %%ymm15; xor %%eax, %%eax; xor %%edi, %%edi; mov %[b], %%rsi; mov $100, %%edx; syscall; vmovups %%ymm0, %[o0]; vmovups %%ymm7, %[o1]; vmovups %%ymm15, %[o2]; vzeroupper" : "=&a"(r), [o0] "=m"(*(float(*)[8])out), [o1] "=m"(*(float(*)[8])(out + 8)), [o2] "=m"(*(float(*)[8])(out + 16)) : [i0] "m"(*(float(*)[8])in), [i1] "m"(*(float(*)[8])(in + 8)), [i2] "m"(*(float(*)[8])(in + 16)), [b] "r"(buf) : "rcx", "r11", "rdi", "rsi", "rdx", "memory", "xmm0", "xmm7", "xmm15"); return r > 0 && !memcmp(in, out, 96); }

CASE(avx_state) {
    if (!__builtin_cpu_supports("avx")) {
        restored();
        return;
    }
    CHECK(avx());
}

CASE(sigev_children_cldstop) {
    handle(SIGCHLD, SA_NOCLDWAIT);
    restored();
    pid_t c = fork();
    if (!c) _exit(0);
    CHECK(waitpid(c, 0, 0) == -1 && errno == ECHILD);
}

CASE(sig_nested_handlers) {
    handle(SIGUSR2, 0);
    struct sigaction a = {0};
    a.sa_sigaction = waiter;
    a.sa_flags = SA_SIGINFO;
    static char st[65536];
    stack_t s = {.ss_sp = st, .ss_size = sizeof st};
    sigaltstack(&s, 0);
    a.sa_flags |= SA_ONSTACK;
    sigaction(SIGUSR1, &a, 0);
    block(SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR2);
    unblock(SIGUSR1);
    CHECK(hits == 2);
}

static int64_t used_ns(clockid_t clock) { struct timespec t; CHECK(clock_gettime(clock, &t) == 0); return t.tv_sec * 1000000000ll + t.tv_nsec; }

CASE(cpu_limit_counts_on) { /* what is left of RLIMIT_CPU is left, though used time counts from nothing */
    struct rlimit limit = {100, 200};
    CHECK(setrlimit(RLIMIT_CPU, &limit) == 0);
    while (used_ns(CLOCK_PROCESS_CPUTIME_ID) < 1100000000) { }
    int64_t used = used_ns(CLOCK_PROCESS_CPUTIME_ID);
    restored();
    CHECK(getrlimit(RLIMIT_CPU, &limit) == 0);
    int64_t before = 100 - used / 1000000000, now = limit.rlim_cur - used_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000000000;
    CHECK(now <= before && now > before - 20 && limit.rlim_max == limit.rlim_cur + 100);
}

static volatile int thread_timer_told;
static timer_t thread_timer;
static int thread_timer_up[2], thread_timer_go[2];
static void on_thread_timer(int s) { thread_timer_told = 1; }
static void *with_own_timer(void *unused) {
    char byte;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = gettid();
    CHECK(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &thread_timer) == 0);
    struct itimerspec left = {{0, 0}, {0, 100000000}};
    CHECK(timer_settime(thread_timer, 0, &left, 0) == 0);
    CHECK(write(thread_timer_up[1], "x", 1) == 1 && read(thread_timer_go[0], &byte, 1) == 1);
    while (!thread_timer_told) { }
    return 0;
}
CASE(ptimer_of_a_thread) { /* it goes on counting the time of that thread, not of the main one, which waits */
    char byte;
    pthread_t thread;
    CHECK(pipe(thread_timer_up) == 0 && pipe(thread_timer_go) == 0);
    signal(SIGUSR1, on_thread_timer);
    CHECK(pthread_create(&thread, 0, with_own_timer, 0) == 0 && read(thread_timer_up[0], &byte, 1) == 1);
    restored();
    CHECK(write(thread_timer_go[1], "x", 1) == 1 && pthread_join(thread, 0) == 0);
}
