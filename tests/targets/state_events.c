/* eventfd, signalfd, timerfd, epoll, inotify and pidfd. argv[1] is an empty directory. */
#include "state.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

int main(int argc, char **argv)
{
    (void)argc;
    char buffer[1000];
    CHECK(chdir(argv[1]) == 0);
    int event = eventfd(90, EFD_NONBLOCK), semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    int signals = signalfd(-1, &set, 0);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0), idle = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
    struct itimerspec time = {.it_value = {5000, 0}, .it_interval = {7, 5}};
    CHECK(timerfd_settime(timer, 0, &time, NULL) == 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event watch = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1234567890};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &watch) == 0);
    int pipes[2], moved;
    CHECK(pipe(pipes) == 0);
    watch.data.u64 = 2;
    watch.events = EPOLLIN | EPOLLONESHOT;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &watch) == 0);
    moved = fcntl(pipes[0], F_DUPFD, 50); /* the watch stays on the pipe, whose first descriptor now is something else */
    CHECK(dup2(event, pipes[0]) == pipes[0]);
    int notify = inotify_init1(IN_NONBLOCK);
    int wd = inotify_add_watch(notify, argv[1], IN_CREATE | IN_DELETE_SELF);
    int parent = syscall(SYS_pidfd_open, getppid(), 0);

    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d %d %d %d %d %d %d", event, semaphore, signals, timer, idle, epoll, pipes[0], moved, notify,
             wd, parent);
    ready(line);

    uint64_t count;
    CHECK(read(event, &count, 8) == 8 && count == 90);
    CHECK(read(semaphore, &count, 8) == 8 && count == 1);
    CHECK(read(notify, buffer, sizeof buffer) == -1 && errno == EAGAIN);
    done();
}
