/* Threads: what each has of its own, and what they wait for. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <semaphore.h>
#include <linux/futex.h>
static __thread int tls = 5; static __thread char tlsbig[5000];
static volatile int go; static pthread_mutex_t mx = PTHREAD_MUTEX_INITIALIZER; static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static pid_t tid(void) {
    return syscall(SYS_gettid);
}
static void hold(void) {
    pthread_mutex_lock(&mx);
    while (!go) pthread_cond_wait(&cv, &mx);
    pthread_mutex_unlock(&mx);
}
static void release(void) {
    pthread_mutex_lock(&mx);
    go = 1;
    pthread_cond_broadcast(&cv);
    pthread_mutex_unlock(&mx);
}
static volatile pid_t tids[64]; static volatile int ready;
static void *t_tls(void *a) {
    long i = (long)a;
    tls = i;
    memset(tlsbig, i, 5000);
    tids[i] = tid();
    __sync_fetch_and_add(&ready, 1);
    hold();
    return (void *)(long)(tls == i && tlsbig[4999] == (char)i && tids[i] == tid());
}

CASE(thr_tls) {
    pthread_t t[8];
    for (long i = 0; i < 8; i++) pthread_create(t + i, 0, t_tls, (void *)i);
    while (ready < 8) usleep(1000);
    usleep(10000);
    restored();
    CHECK(tls == 5);
    release();
    for (int i = 0; i < 8; i++) {
        void *r;
        pthread_join(t[i], &r);
        CHECK(r);
    }
}
static void *t_name(void *a) {
    prctl(PR_SET_NAME, "a worker )(");
    ready = 1;
    hold();
    char n[17] = {0};
    prctl(PR_GET_NAME, n);
    return (void *)(long)!strcmp(n, "a worker )(");
}

CASE(thr_name) {
    pthread_t t;
    prctl(PR_SET_NAME, "main name");
    pthread_create(&t, 0, t_name, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    char n[17];
    prctl(PR_GET_NAME, n);
    CHECK(!strcmp(n, "main name"));
    release();
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}
static void *t_sched(void *a) {
    struct sched_param p = {.sched_priority = 5};
    int r = sched_setscheduler(0, SCHED_FIFO, &p);
    if (r) {
        struct sched_param z = {0};
        sched_setscheduler(0, SCHED_BATCH, &z);
    }
    tids[1] = sched_getscheduler(0);
    ready = 1;
    hold();
    struct sched_param q;
    sched_getparam(0, &q);
    return (void *)(long)(sched_getscheduler(0) == tids[1] && (tids[1] != SCHED_FIFO || q.sched_priority == 5));
}

CASE(thr_scheduling) {
    pthread_t t;
    setpriority(PRIO_PROCESS, 0, 3);
    pthread_create(&t, 0, t_sched, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    CHECK(getpriority(PRIO_PROCESS, 0) == 3);
    release();
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}

CASE(thr_reset_on_fork) {
    struct sched_param z = {0};
    CHECK(!sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &z));
    restored();
    CHECK(sched_getscheduler(0) == (SCHED_BATCH | SCHED_RESET_ON_FORK));
}

CASE(thr_affinity) {
    cpu_set_t s;
    CPU_ZERO(&s);
    CPU_SET(1, &s);
    int r = sched_setaffinity(0, sizeof s, &s);
    restored();
    CPU_ZERO(&s);
    sched_getaffinity(0, sizeof s, &s);
    if (!r) CHECK(CPU_COUNT(&s) == 1 && CPU_ISSET(1, &s));
}

CASE(thr_ioprio) {
    int r = syscall(SYS_ioprio_set, 1, 0, (2 << 13) | 6);
    restored();
    CHECK(r || syscall(SYS_ioprio_get, 1, 0) == ((2 << 13) | 6));
}

CASE(thr_uclamp_slice) {
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t rt, dl, pe; uint32_t umin, umax; } a = {56, 0, 0x60, 0, 0, 5000000, 0, 0, 100, 700};
    int r = syscall(SYS_sched_setattr, 0, &a, 0);
    if (r) {
        a.flags = 0;
        a.umin = 0;
        a.umax = 0;
        r = syscall(SYS_sched_setattr, 0, &a, 0);
        a.umax = 0;
    }
    restored();
    uint32_t um = a.umax;
    memset(&a, 0, sizeof a);
    syscall(SYS_sched_getattr, 0, &a, 56, 0);
    if (!r) CHECK(a.rt == 5000000);
    if (!r && um) CHECK(a.umin == 100 && a.umax == 700);
}

CASE(thr_deadline) {
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t rt, dl, pe; } a = {48, 6, 0, 0, 0, 1000000, 10000000, 20000000};
    int r = syscall(SYS_sched_setattr, 0, &a, 0);
    restored();
    memset(&a, 0, sizeof a);
    syscall(SYS_sched_getattr, 0, &a, 48, 0);
    if (!r) CHECK(a.policy == 6 && a.rt == 1000000 && a.dl == 10000000 && a.pe == 20000000);
}
static pthread_mutex_t rob;
static void *t_rob(void *a) {
    pthread_mutex_lock(&rob);
    ready = 1;
    hold();
    return 0;
}

CASE(thr_robust) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&rob, &a);
    pthread_t t;
    pthread_create(&t, 0, t_rob, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    CHECK(pthread_mutex_trylock(&rob) == EBUSY);
    release();
    pthread_join(t, 0);
    CHECK(pthread_mutex_lock(&rob) == EOWNERDEAD);
}

CASE(thr_robust_process) {
    pthread_mutex_t *m = mmap(0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, 1);
    pthread_mutexattr_setpshared(&a, 1);
    pthread_mutex_init(m, &a);
    pid_t c = fork();
    if (!c) {
        pthread_mutex_lock(m);
        pause();
    }
    until_in_call(c, SYS_pause);
    restored();
    CHECK(pthread_mutex_trylock(m) == EBUSY);
    kill(c, 9);
    waitpid(c, 0, 0);
    CHECK(pthread_mutex_lock(m) == EOWNERDEAD);
}
static void *t_mask(void *a) {
    sigset_t m;
    sigemptyset(&m);
    sigaddset(&m, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &m, 0);
    static char st[65536];
    stack_t s = {.ss_sp = st, .ss_size = sizeof st};
    sigaltstack(&s, 0);
    tids[0] = tid();
    ready = 1;
    hold();
    pthread_sigmask(0, 0, &m);
    stack_t o;
    sigaltstack(0, &o);
    return (void *)(long)(sigismember(&m, SIGUSR2) && !sigismember(&m, SIGUSR1) && o.ss_sp == st);
}

CASE(thr_mask_altstack) {
    pthread_t t;
    pthread_create(&t, 0, t_mask, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    sigset_t m;
    pthread_sigmask(0, 0, &m);
    CHECK(!sigismember(&m, SIGUSR2));
    stack_t o;
    sigaltstack(0, &o);
    CHECK(o.ss_flags & SS_DISABLE);
    release();
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}

CASE(thr_pending_in_thread) {
    pthread_t t;
    pthread_create(&t, 0, t_mask, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    pthread_kill(t, SIGUSR2);
    pthread_kill(t, SIGUSR2);
    restored();
    char p[60], l[300];
    sprintf(p, "/proc/self/task/%d/status", tids[0]);
    FILE *f = fopen(p, "r");
    CHECK(f);
    unsigned long v = 0;
    while (fgets(l, 300, f)) sscanf(l, "SigPnd: %lx", &v);
    CHECK(v == 1ul << (SIGUSR2 - 1));
}
static void *t_mutex(void *a) {
    pthread_mutex_lock(&rob);
    pthread_mutex_unlock(&rob);
    return (void *)1;
}
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static void *t_rw(void *a) {
    pthread_rwlock_wrlock(&rw);
    return (void *)1;
}

CASE(thr_rwlock_waiter) {
    pthread_rwlock_rdlock(&rw);
    pthread_t t;
    pthread_create(&t, 0, t_rw, 0);
    usleep(20000);
    restored();
    pthread_rwlock_unlock(&rw);
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}
static pthread_barrier_t bar;
static void *t_bar(void *a) {
    pthread_barrier_wait(&bar);
    return (void *)1;
}

CASE(thr_barrier) {
    pthread_barrier_init(&bar, 0, 3);
    pthread_t t, u;
    pthread_create(&t, 0, t_bar, 0);
    pthread_create(&u, 0, t_bar, 0);
    usleep(20000);
    restored();
    pthread_barrier_wait(&bar);
    void *r;
    pthread_join(t, &r);
    pthread_join(u, &r);
    CHECK(r);
}
static sem_t sem;
static void *t_sem(void *a) {
    sem_wait(&sem);
    return (void *)1;
}
static void *t_spin(void *a) {
    ready = 1;
    volatile uint64_t n = 0;
    while (!go) n++;
    return (void *)1;
}

CASE(thr_spinning) {
    pthread_t t;
    pthread_create(&t, 0, t_spin, 0);
    while (!ready) usleep(1000);
    restored();
    go = 1;
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}
static void *t_exit(void *a) {
    return (void *)77;
}

CASE(thr_exited_unjoined) {
    pthread_t t;
    pthread_create(&t, 0, t_exit, 0);
    usleep(20000);
    restored();
    void *r;
    CHECK(!pthread_join(t, &r) && r == (void *)77);
}
static void *t_main_gone(void *a) {
    restored();
    printf("verified\n");
    fflush(stdout);
    _exit(42);
}
static void *t_create(void *a) {
    return a;
}
static pthread_key_t key;
static int destroyed;
static void destroy(void *p) {
    destroyed = (long)p;
}
static void *t_key(void *a) {
    pthread_setspecific(key, (void *)55);
    ready = 1;
    hold();
    return (void *)(pthread_getspecific(key) == (void *)55 ? 1l : 0l);
}

CASE(thr_specific) {
    pthread_key_create(&key, destroy);
    pthread_t t;
    pthread_create(&t, 0, t_key, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    release();
    void *r;
    pthread_join(t, &r);
    CHECK(r && destroyed == 55);
}
static void *t_cancel(void *a) {
    pthread_cleanup_push(destroy, (void *)66);
    pause();
    pthread_cleanup_pop(0);
    return 0;
}

CASE(thr_cancel) {
    pthread_t t;
    pthread_create(&t, 0, t_cancel, 0);
    usleep(20000);
    restored();
    pthread_cancel(t);
    void *r;
    pthread_join(t, &r);
    CHECK(r == PTHREAD_CANCELED && destroyed == 66);
}

CASE(thr_gs_base) {
    static long data[4] = {0, 99};
    syscall(SYS_arch_prctl, 0x1001, data);
    restored();
    long v;
    __asm__ volatile("mov %%gs:8, %0" : "=r"(v));
    CHECK(v == 99);
}

CASE(thr_rseq) {
    restored();
    unsigned c;
    CHECK(sched_getcpu() >= 0);
    for (int i = 0; i < 2; i++) {
        cpu_set_t s;
        CPU_ZERO(&s);
        CPU_SET(i, &s);
        if (!sched_setaffinity(0, sizeof s, &s)) CHECK(sched_getcpu() == i);
    }
}

CASE(thr_timerslack) {
    prctl(PR_SET_TIMERSLACK, 123456);
    restored();
    CHECK(prctl(PR_GET_TIMERSLACK) == 123456);
}
static void *t_slack(void *a) {
    prctl(PR_SET_TIMERSLACK, 7777);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    ready = 1;
    hold();
    int s = 0;
    prctl(PR_GET_PDEATHSIG, &s);
    return (void *)(long)(prctl(PR_GET_TIMERSLACK) == 7777);
}

CASE(thr_timerslack_thread) {
    pthread_t t;
    pthread_create(&t, 0, t_slack, 0);
    while (!ready) usleep(1000);
    usleep(10000);
    restored();
    CHECK(prctl(PR_GET_TIMERSLACK) != 7777);
    release();
    void *r;
    pthread_join(t, &r);
    CHECK(r);
}
static uint32_t word;
static void *t_pi(void *a) {
    pthread_mutex_lock(&rob);
    ready = 1;
    hold();
    pthread_mutex_unlock(&rob);
    return 0;
}
static void *t_pi2(void *a) {
    pthread_mutex_lock(&rob);
    pthread_mutex_unlock(&rob);
    return (void *)1;
}

CASE(thr_pi_mutex) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&rob, &a);
    pthread_t t, u;
    pthread_create(&t, 0, t_pi, 0);
    while (!ready) usleep(1000);
    pthread_create(&u, 0, t_pi2, 0);
    usleep(30000);
    restored();
    CHECK(pthread_mutex_trylock(&rob) == EBUSY);
    release();
    void *r;
    pthread_join(t, 0);
    pthread_join(u, &r);
    CHECK(r);
    CHECK(!pthread_mutex_lock(&rob));
}
static void *t_vfork(void *a) {
    pid_t c = vfork();
    if (!c) {
        char b;
        read(go, &b, 1);
        _exit(3);
    }
    int st;
    waitpid(c, &st, 0);
    return (void *)(long)(WEXITSTATUS(st) == 3);
}
static int cl(void *a) {
    pause();
    return 0;
}
static void *t_seg(void *a) {
    unsigned long f;
    syscall(SYS_arch_prctl, 0x1003, &f);
    tids[0] = 1;
    ready = 1;
    hold();
    unsigned long g;
    syscall(SYS_arch_prctl, 0x1003, &g);
    return (void *)(long)(f == g);
}

CASE(thr_membarrier) {
    int r = syscall(SYS_membarrier, 1 << 4, 0, 0);
    restored();
    if (!r) CHECK(syscall(SYS_membarrier, 1 << 3, 0, 0) == 0);
}

static pthread_t first; static pid_t first_pid, survivor;
static void *t_survivor(void *a) {
    (void)a;
    survivor = tid();
    prctl(PR_SET_NAME, "survivor");
    CHECK(pthread_join(first, 0) == 0);
    char line[200] = "";
    FILE *f;
    while (!strstr(line, ") Z ")) {
        CHECK((f = fopen("/proc/self/stat", "r")) && fgets(line, sizeof line, f));
        fclose(f);
    }
    restored();
    CHECK(getpid() == first_pid && tid() == survivor && tid() != getpid());
    CHECK((f = fopen("/proc/self/stat", "r")) && fgets(line, sizeof line, f) && strstr(line, "(the leader) Z "));
    CHECK(kill(getpid(), 0) == 0 && syscall(SYS_tgkill, getpid(), getpid(), 0) == 0);
    int p = fork(), st;
    CHECK(p >= 0);
    if (!p) _exit(7);
    CHECK(waitpid(p, &st, 0) == p && WEXITSTATUS(st) == 7);
    printf("verified\n");
    fflush(stdout);
    _exit(42);
}

CASE(thr_main_has_ended) {
    pthread_t t;
    first = pthread_self();
    first_pid = getpid();
    prctl(PR_SET_NAME, "the leader");
    pthread_create(&t, 0, t_survivor, 0);
    pthread_exit(0);
}

CASE(thr_memory_policy) {
    unsigned long node = 1, found = 0;
    int mode = 0, has = syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &node, 64) == 0; /* a kernel may have no NUMA */
    restored();
    CHECK(!has || (syscall(SYS_get_mempolicy, &mode, &found, 64, 0, 0) == 0 && mode == 2 && found == 1));
}

static volatile int own_settings_made, own_settings_read, own_keepcaps, own_tsc;
static void *with_own_settings(void *unused) {
    prctl(PR_SET_KEEPCAPS, 1);
    prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
    own_settings_made = 1;
    while (!own_settings_read) usleep(1000);
    int tsc = 0;
    own_keepcaps = prctl(PR_GET_KEEPCAPS);
    own_tsc = prctl(PR_GET_TSC, &tsc) == 0 ? tsc : -1;
    return 0;
}
CASE(thr_own_settings) { /* which the main thread has not */
    pthread_t thread;
    int tsc = 0;
    CHECK(!pthread_create(&thread, 0, with_own_settings, 0));
    while (!own_settings_made) usleep(1000);
    restored();
    own_settings_read = 1;
    CHECK(!pthread_join(thread, 0) && own_keepcaps == 1 && own_tsc == PR_TSC_SIGSEGV);
    CHECK(prctl(PR_GET_KEEPCAPS) == 0 && prctl(PR_GET_TSC, &tsc) == 0 && tsc == PR_TSC_ENABLE);
}

struct between { pthread_mutex_t mutex, inheriting; pthread_cond_t condition; pthread_barrier_t barrier; pthread_rwlock_t rwlock; int go; };

CASE(thr_locks_between_processes) {
    struct between *all = map(4096, RW, MAP_SHARED | MAP_ANONYMOUS);
    pthread_mutexattr_t mutex;
    pthread_condattr_t condition;
    pthread_barrierattr_t barrier;
    pthread_rwlockattr_t rwlock;
    CHECK(!pthread_mutexattr_init(&mutex) && !pthread_mutexattr_setpshared(&mutex, 1) && !pthread_mutexattr_setrobust(&mutex, 1));
    CHECK(!pthread_mutex_init(&all->mutex, &mutex) && !pthread_mutexattr_setprotocol(&mutex, PTHREAD_PRIO_INHERIT));
    CHECK(!pthread_mutex_init(&all->inheriting, &mutex));
    CHECK(!pthread_condattr_init(&condition) && !pthread_condattr_setpshared(&condition, 1) && !pthread_cond_init(&all->condition, &condition));
    CHECK(!pthread_barrierattr_init(&barrier) && !pthread_barrierattr_setpshared(&barrier, 1) && !pthread_barrier_init(&all->barrier, &barrier, 2));
    CHECK(!pthread_rwlockattr_init(&rwlock) && !pthread_rwlockattr_setpshared(&rwlock, 1) && !pthread_rwlock_init(&all->rwlock, &rwlock));
    CHECK(!pthread_mutex_lock(&all->inheriting) && !pthread_rwlock_wrlock(&all->rwlock));
    pid_t children[4];
    int status;
    for (int i = 0; i < 4; i++) {
        if ((children[i] = fork())) continue;
        if (i == 0) {
            pthread_mutex_lock(&all->mutex);
            while (!all->go) pthread_cond_wait(&all->condition, &all->mutex);
            _exit(pthread_mutex_unlock(&all->mutex));
        }
        if (i == 1) { pthread_barrier_wait(&all->barrier); _exit(0); }
        _exit(i == 2 ? pthread_rwlock_rdlock(&all->rwlock) : pthread_mutex_lock(&all->inheriting));
    }
    for (int i = 0; i < 4; i++) until_in_call(children[i], SYS_futex);
    restored();
    CHECK(!pthread_mutex_lock(&all->mutex));
    all->go = 1;
    CHECK(!pthread_cond_broadcast(&all->condition) && !pthread_mutex_unlock(&all->mutex));
    pthread_barrier_wait(&all->barrier);
    CHECK(!pthread_rwlock_unlock(&all->rwlock) && !pthread_mutex_unlock(&all->inheriting));
    for (int i = 0; i < 4; i++) CHECK(waitpid(children[i], &status, 0) == children[i] && !status);
    CHECK(pthread_mutex_lock(&all->inheriting) == EOWNERDEAD);
}
