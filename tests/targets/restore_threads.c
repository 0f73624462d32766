/* Threads: ids, names, thread-local storage, vector registers, masks, alternate stacks, a held mutex, waits in futex, sleep and poll. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

static __thread int local;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static volatile int go, handled_on_alternate;
static int started;
static char alternate[65536];

static void handler(int n) {
    char here;
    handled_on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
}

static void begin(int n) {
    char name[16];
    snprintf(name, sizeof name, "worker-%d", n);
    prctl(PR_SET_NAME, name);
    local = 1000 + n;
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
}

static void end(int n, pid_t tid) {
    char name[16], wanted[16];
    snprintf(wanted, sizeof wanted, "worker-%d", n);
    prctl(PR_GET_NAME, name);
    CHECK(!strcmp(name, wanted));
    CHECK(local == 1000 + n);
    CHECK(syscall(SYS_gettid) == tid);
}

static void *in_condition(void *n) {
    begin(0);
    pid_t tid = syscall(SYS_gettid);
    pthread_mutex_lock(&mutex);
    while (!go) pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    end(0, tid);
    return n;
}

static void *in_sleep(void *n) {
    begin(1);
    pid_t tid = syscall(SYS_gettid);
    struct timespec rest = {0, 300000000};
    while (!go) CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, 0) == 0);
    end(1, tid);
    return n;
}

static void *in_poll(void *n) {
    begin(2);
    pid_t tid = syscall(SYS_gettid);
    while (!go) CHECK(poll(0, 0, 200) == 0);
    end(2, tid);
    return n;
}

static void *in_vectors(void *n) {
    begin(3);
    pid_t tid = syscall(SYS_gettid);
    double wanted[2] = {3.25, -7.5}, found[2];
    unsigned mxcsr = 0x1f80 | 0x6000, after;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    __asm__ volatile("movupd %1, %%xmm11\n"
                     "1: cmpl $0, %2\n"
                     "je 1b\n"
                     "movupd %%xmm11, %0"
                     : "=m"(found) : "m"(wanted), "m"(go) : "xmm11", "memory");
    __asm__ volatile("stmxcsr %0" : "=m"(after));
    CHECK(found[0] == wanted[0] && found[1] == wanted[1]);
    CHECK((after & ~0x3fu) == mxcsr);
    end(3, tid);
    return n;
}

static void *in_signals(void *n) {
    begin(4);
    pid_t tid = syscall(SYS_gettid);
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, found;
    sigset_t set, old;
    sigaltstack(&stack, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 3);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    while (!go) usleep(50000);
    pthread_sigmask(SIG_SETMASK, 0, &old);
    CHECK(!memcmp(&old, &set, 8));
    CHECK(sigaltstack(0, &found) == 0 && found.ss_sp == alternate && found.ss_size == sizeof alternate);
    CHECK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0 && handled_on_alternate);
    end(4, tid);
    return n;
}

int main(void) {
    static void *(*const bodies[])(void *) = {in_condition, in_sleep, in_poll, in_vectors, in_signals};
    pthread_t threads[5];
    pthread_mutex_t recursive;
    pthread_mutexattr_t attributes;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&recursive, &attributes);
    CHECK(pthread_mutex_lock(&recursive) == 0);
    for (int i = 0; i < 5; i++) CHECK(pthread_create(&threads[i], 0, bodies[i], 0) == 0);
    while (__atomic_load_n(&started, __ATOMIC_SEQ_CST) < 5) usleep(1000);
    usleep(30000);
    wait_to_be_restored();
    CHECK(pthread_mutex_lock(&recursive) == 0);
    CHECK(pthread_mutex_unlock(&recursive) == 0 && pthread_mutex_unlock(&recursive) == 0);
    pthread_mutex_lock(&mutex);
    go = 1;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 5; i++) CHECK(pthread_join(threads[i], 0) == 0);
    return verified();
}
