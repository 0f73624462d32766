/* Two seccomp filters of the process, a third of one thread alone; they forbid what a restore itself has to do. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void forbid(int number, int error) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static int go[2];
static volatile int done;
static pthread_barrier_t barrier;

static void *work(void *unused) {
    char byte;
    forbid(SYS_getppid, ENODATA);
    pthread_barrier_wait(&barrier);
    CHECK(read(go[0], &byte, 1) == 1);
    CHECK(syscall(SYS_getppid) == -1 && errno == ENODATA && getpgid(0) == -1 && errno == EXDEV);
    done = 1;
    return unused;
}

static volatile int caught;

static void handler(int number) {
    caught = number;
}

/* An argument: handlers cannot be captured. */
int main(int argc, char **argv) {
    int handled = argc == 1;
    pthread_t thread;
    if (handled)
        signal(SIGUSR1, handler);
    CHECK(pipe(go) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && pthread_barrier_init(&barrier, NULL, 2) == 0);
    forbid(SYS_getpgid, EXDEV);
    forbid(SYS_munmap, ENOMEDIUM);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_barrier_wait(&barrier);
    wait_to_be_restored();
    CHECK(prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    CHECK(getpgid(0) == -1 && errno == EXDEV && syscall(SYS_munmap, 4096, 4096) == -1 && errno == ENOMEDIUM);
    CHECK(getppid() >= 0 && write(go[1], "x", 1) == 1);
    CHECK(!handled || (raise(SIGUSR1) == 0 && caught));
    /* Not pthread_join(): where the kernel tells of its end, a capture under a filter does not know. */
    while (!done)
        usleep(1000);
    return verified();
}
