/* System calls that wait; see restore_cases.h. */
#include "restore_cases.h"
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <sys/sem.h>

/* Each waits for five seconds and is captured after three: when it runs again, two are left, and certainly not five. */
#define SECONDS 5
#define BEFORE 3
#define AT_MOST 4500000000ll

static struct timespec whole = {SECONDS, 0};

static long w_nanosleep(void) { return nanosleep(&whole, 0); }
static long w_clock_nanosleep(void) { return clock_nanosleep(CLOCK_MONOTONIC, 0, &whole, 0); }
static long w_poll(void) { return poll(0, 0, SECONDS * 1000); }
static long w_select(void) {
    struct timeval time = {SECONDS, 0};
    return select(0, 0, 0, 0, &time);
}
static long w_epoll(void) {
    struct epoll_event event;
    return epoll_wait(epoll_create1(0), &event, 1, SECONDS * 1000);
}
static long w_futex(void) {
    int word = 1;
    return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &whole, 0, 0) == -1 && errno == ETIMEDOUT ? 0 : 1;
}
static long w_sigtimedwait(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigtimedwait(&set, 0, &whole) == -1 && errno == EAGAIN ? 0 : 1;
}
static long w_semtimedop(void) {
    struct sembuf take = {0, -1, 0};
    int set = semget(IPC_PRIVATE, 1, 0600);
    long result = semtimedop(set, &take, 1, &whole) == -1 && errno == EAGAIN ? 0 : 1;
    semctl(set, 0, IPC_RMID);
    return result;
}
static long w_timerfd(void) {
    uint64_t ticks;
    struct itimerspec spec = {{0, 0}, {SECONDS, 0}};
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(fd, 0, &spec, 0);
    return read(fd, &ticks, 8) == 8 && ticks == 1 ? 0 : 1;
}
static void *run(void *wait) { return (void *)((long (*)(void))wait)(); }

CASE(wait_remaining_times) {
    long (*waits[])(void) = {w_nanosleep, w_clock_nanosleep, w_poll, w_select, w_epoll, w_futex, w_sigtimedwait, w_semtimedop, w_timerfd};
    enum { COUNT = sizeof waits / sizeof *waits };
    pthread_t threads[COUNT];
    void *result;
    for (int i = 0; i < COUNT; i++) CHECK(!pthread_create(threads + i, 0, run, waits[i]));
    sleep(BEFORE);
    restored();
    int64_t start = now_ns();
    for (int i = 0; i < COUNT; i++) {
        CHECK(!pthread_join(threads[i], &result) && !result);
        CHECK(now_ns() - start < AT_MOST);
    }
}

CASE(wait_of_a_child) {
    int gate[2], status;
    pipe(gate);
    pid_t child = fork();
    if (!child) {
        pid_t grandchild = fork();
        if (!grandchild) {
            char byte;
            close(gate[1]);
            read(gate[0], &byte, 1);
            _exit(8);
        }
        close(gate[1]);
        _exit(waitpid(grandchild, &status, 0) == grandchild && WEXITSTATUS(status) == 8 ? 4 : 5);
    }
    until_in_call(child, SYS_wait4);
    restored();
    close(gate[1]);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4);
}

CASE(wait_epoll_without_end) {
    int epoll = epoll_create1(0), counter = eventfd(0, 0), status;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 4}, found;
    epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event);
    pid_t child = fork();
    if (!child) _exit(epoll_wait(epoll, &found, 1, -1) == 1 && found.data.u32 == 4 ? 6 : 7);
    until_in_call(child, SYS_epoll_wait);
    restored();
    uint64_t one = 1;
    write(counter, &one, 8);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 6);
}

static long submit(aio_context_t context, int fd, char *text, uint64_t data) {
    struct iocb request = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)text, .aio_nbytes = strlen(text), .aio_data = data};
    struct iocb *list[1] = {&request};
    return syscall(SYS_io_submit, context, 1, list);
}

CASE(aio_context) {
    aio_context_t waiting = 0, empty = 0;
    struct io_event events[4];
    int fd = memfd_create("x", 0);
    if (syscall(SYS_io_setup, 10, &waiting) == -1 && errno == ENOSYS) { restored(); return; }
    CHECK(fd >= 0 && syscall(SYS_io_setup, 1, &empty) == 0);
    for (int i = 0; i < 3; i++) CHECK(submit(waiting, fd, "0123456789" + i, 77 + i) == 1);
    CHECK(syscall(SYS_io_getevents, waiting, 1, 1, events, 0) == 1 && events[0].data == 77);
    restored();
    CHECK(submit(waiting, fd, "last", 100) == 1 && submit(empty, fd, "other", 200) == 1);
    CHECK(syscall(SYS_io_getevents, waiting, 3, 4, events, 0) == 3);
    CHECK(events[0].data == 78 && events[0].res == 9 && events[1].data == 79 && events[1].res == 8 && events[2].data == 100 && events[2].res == 4);
    CHECK(syscall(SYS_io_getevents, empty, 1, 4, events, 0) == 1 && events[0].data == 200);
    CHECK(syscall(SYS_io_destroy, waiting) == 0 && syscall(SYS_io_destroy, empty) == 0);
}
