/* eventfd, timerfd, signalfd, epoll, inotify, pidfd. Works in the current directory. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

int main(void) {
    uint64_t value;
    char buffer[4096];
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x123456789abcdefull}, found;
    int counter = eventfd(5, EFD_NONBLOCK), semaphore = eventfd(3, EFD_SEMAPHORE);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), expired = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec later = {{0, 300000000}, {0, 400000000}}, at_once = {{0, 0}, {0, 1}}, left;
    sigset_t set;
    timerfd_settime(timer, 0, &later, 0);
    timerfd_settime(expired, 0, &at_once, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    int signals = signalfd(-1, &set, SFD_NONBLOCK);
    kill(getpid(), SIGUSR1);
    int epoll = epoll_create1(0), ends[2];
    CHECK(pipe(ends) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    int watcher = inotify_init1(IN_NONBLOCK);
    close(open("watched", O_CREAT | O_WRONLY, 0600));
    int first = inotify_add_watch(watcher, "/", IN_CREATE);
    CHECK(inotify_rm_watch(watcher, first) == 0 && read(watcher, buffer, sizeof buffer) > 0);
    int watch = inotify_add_watch(watcher, "watched", IN_CLOSE_WRITE);
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    usleep(1000);

    wait_to_be_restored();
    CHECK(read(counter, &value, 8) == 8 && value == 5 && read(counter, &value, 8) == -1 && errno == EAGAIN);
    CHECK(read(semaphore, &value, 8) == 8 && value == 1 && read(semaphore, &value, 8) == 8 && value == 1);
    CHECK(read(expired, &value, 8) == 8 && value == 1);
    CHECK(timerfd_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 300000000);
    fcntl(timer, F_SETFL, 0);
    CHECK(read(timer, &value, 8) == 8 && value >= 1);
    struct signalfd_siginfo info;
    CHECK(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1 && info.ssi_pid == (uint32_t)getpid());
    CHECK(epoll_wait(epoll, &found, 1, 0) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(epoll_wait(epoll, &found, 1, 1000) == 1 && found.data.u64 == event.data.u64);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, ends[0], 0) == 0);
    close(open("watched", O_WRONLY));
    struct inotify_event *told = (struct inotify_event *)buffer;
    CHECK(read(watcher, buffer, sizeof buffer) > 0 && told->wd == watch && told->mask == IN_CLOSE_WRITE);
    CHECK(syscall(SYS_pidfd_send_signal, self, SIGUSR1, 0, 0) == 0);
    CHECK(read(signals, &info, sizeof info) == sizeof info);
    return verified();
}
