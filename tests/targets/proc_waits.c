/* proc_waits CALL: a thread waits with CALL again and again, always for a time that is known, until a line comes on stdin. Prints
 * "done N" when each of its N waits ended as it should and not before its time, else what went wrong. Waits last 4 ms. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS 4000000L

static const struct timespec wait_time = {0, WAIT_NS};
static const char *call;
static atomic_int over;
static atomic_long rounds;
static int epoll, pair[2], listener, sem, msg, timer, pipes[2];
static aio_context_t aio;
static sigset_t usr1;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *why, long result)
{
    printf("%s: %s: result %ld, %s\n", call, why, result, strerror(errno));
    exit(0);
}

/* The wait must end with this result, or with -1 and this errno (result 0, error 0: anything but EINTR). */
static void expect(long got, long result, int error)
{
    if (got == -1 && errno != error)
        fail("failed", got);
    if (got != -1 && got != result)
        fail("unexpected", got);
}

/* Sends the calling thread a signal every 4 ms. */
static void signal_me(int number)
{
    struct itimerspec when = {wait_time, wait_time};
    struct sigevent to_me = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number};
    timer_t id;
    to_me._sigev_un._tid = gettid();
    timer_create(CLOCK_MONOTONIC, &to_me, &id);
    timer_settime(id, 0, &when, NULL);
}

static int ended_by_signal(void)
{
    return !strcmp(call, "pause") || !strcmp(call, "sigsuspend") || !strcmp(call, "epoll_signal");
}

/* The timeouts of sockets are counted in ticks of the kernel, the first of which may be short. */
static int ended_by_tick(void)
{
    return !strcmp(call, "recv") || !strcmp(call, "read") || !strcmp(call, "send") || !strcmp(call, "accept");
}

static void one_wait(void)
{
    struct epoll_event event;
    char byte[1 << 16] = "";
    struct timespec t = wait_time, end;
    struct timeval tv = {0, WAIT_NS / 1000};
    struct pollfd idle = {pair[0], POLLIN, 0};

    if (!strcmp(call, "epoll_wait"))
        expect(epoll_wait(epoll, &event, 1, 4), 0, 0);
    else if (!strcmp(call, "epoll_pwait"))
        expect(epoll_pwait(epoll, &event, 1, 4, &usr1), 0, 0);
    else if (!strcmp(call, "epoll_pwait2"))
        expect(syscall(441, epoll, &event, 1, &t, &usr1, 8), 0, 0);
    else if (!strcmp(call, "sigtimedwait"))
        expect(sigtimedwait(&usr1, NULL, &t), -2, EAGAIN);
    else if (!strcmp(call, "semtimedop"))
        expect(semtimedop(sem, &(struct sembuf){0, -1, 0}, 1, &t), -2, EAGAIN);
    else if (!strcmp(call, "io_getevents")) {
        struct io_event done;
        expect(syscall(SYS_io_getevents, aio, 1, 1, &done, &t), 0, 0);
    } else if (!strcmp(call, "io_pgetevents")) {
        struct io_event done;
        expect(syscall(333, aio, 1, 1, &done, &t, NULL), 0, 0);
    } else if (!strcmp(call, "recv"))
        expect(recv(pair[0], byte, 1, 0), -2, EAGAIN);
    else if (!strcmp(call, "read"))
        expect(read(pair[0], byte, 1), -2, EAGAIN);
    else if (!strcmp(call, "send"))
        expect(send(pair[1], byte, sizeof byte, 0), -2, EAGAIN);
    else if (!strcmp(call, "accept"))
        expect(accept(listener, NULL, NULL), -2, EAGAIN);
    else if (!strcmp(call, "poll"))
        expect(poll(&idle, 1, 4), 0, 0);
    else if (!strcmp(call, "ppoll"))
        expect(ppoll(&idle, 1, &t, &usr1), 0, 0);
    else if (!strcmp(call, "select"))
        expect(select(0, NULL, NULL, NULL, &tv), 0, 0);
    else if (!strcmp(call, "nanosleep"))
        expect(nanosleep(&t, NULL), 0, 0);
    else if (!strcmp(call, "clock_nanosleep")) {
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += WAIT_NS;
        if (end.tv_nsec >= 1000000000L)
            end.tv_nsec -= 1000000000L, end.tv_sec++;
        expect(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL), 0, 0);
    } else if (!strcmp(call, "futex")) {
        int word = 0;
        expect(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0), -2, ETIMEDOUT);
    } else if (!strcmp(call, "timerfd")) {
        struct itimerspec when = {{0, 0}, wait_time};
        timerfd_settime(timer, 0, &when, NULL);
        expect(read(timer, byte, 8), 8, 0);
    } else if (!strcmp(call, "waitpid")) {
        int status, child = fork();
        if (child == 0) {
            nanosleep(&t, NULL);
            _exit(7);
        }
        expect(waitpid(-1, &status, 0), child, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
            fail("wrong status", status);
    } else if (!strcmp(call, "pause")) {
        if (pause() != -1 || errno != EINTR)
            fail("not EINTR", 0);
    } else if (!strcmp(call, "sigsuspend")) {
        sigset_t none;
        sigemptyset(&none);
        if (sigsuspend(&none) != -1 || errno != EINTR)
            fail("not EINTR", 0);
    } else if (!strcmp(call, "epoll_signal")) {
        /* A handler must still make it EINTR, SA_RESTART or not. */
        if (epoll_wait(epoll, &event, 1, 1000) != -1 || errno != EINTR)
            fail("not EINTR", 0);
    } else if (!strcmp(call, "epoll_ignored"))
        /* A signal that is ignored does not end a wait. */
        expect(epoll_wait(epoll, &event, 1, 4), 0, 0);
    else
        fail("unknown call", 0);
}

/* Waits without an end of their own, ended by another thread 4 ms later. */
static atomic_int go;

static int woken_by_partner(void)
{
    return !strcmp(call, "semop") || !strcmp(call, "msgrcv") || !strcmp(call, "pipe") || !strcmp(call, "epoll_event") ||
           !strcmp(call, "flock") || !strcmp(call, "sigwaitinfo") || !strcmp(call, "mutex");
}

static pthread_t worker_thread;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int files[2];

static void *partner(void *unused)
{
    (void)unused;
    while (!over) {
        while (!go && !over)
            usleep(100);
        go = 0;
        nanosleep(&wait_time, NULL);
        if (!strcmp(call, "semop"))
            semop(sem, &(struct sembuf){0, 1, 0}, 1);
        else if (!strcmp(call, "msgrcv"))
            msgsnd(msg, &(struct { long type; char text[1]; }){1, {'m'}}, 1, 0);
        else if (!strcmp(call, "sigwaitinfo"))
            pthread_kill(worker_thread, SIGUSR1);
        else if (!strcmp(call, "flock"))
            flock(files[1], LOCK_UN);
        else if (!strcmp(call, "mutex"))
            pthread_mutex_unlock(&mutex);
        else if (write(pipes[1], "x", 1) != 1)
            fail("write", 0);
    }
    return NULL;
}

static void one_woken_wait(void)
{
    char byte;
    struct epoll_event event;
    struct { long type; char text[1]; } message;

    if (!strcmp(call, "flock"))
        flock(files[1], LOCK_EX);
    if (!strcmp(call, "mutex"))
        pthread_mutex_lock(&mutex);
    go = 1;
    if (!strcmp(call, "semop"))
        expect(semop(sem, &(struct sembuf){0, -1, 0}, 1), 0, 0);
    else if (!strcmp(call, "msgrcv"))
        expect(msgrcv(msg, &message, 1, 0, 0), 1, 0);
    else if (!strcmp(call, "sigwaitinfo"))
        expect(sigwaitinfo(&usr1, NULL), SIGUSR1, 0);
    else if (!strcmp(call, "flock")) {
        expect(flock(files[0], LOCK_EX), 0, 0);
        flock(files[0], LOCK_UN);
    } else if (!strcmp(call, "mutex")) {
        if (pthread_mutex_lock(&mutex))
            fail("mutex", 0);
        pthread_mutex_unlock(&mutex);
    } else if (!strcmp(call, "epoll_event")) {
        expect(epoll_wait(epoll, &event, 1, -1), 1, 0);
        expect(read(pipes[0], &byte, 1), 1, 0);
    } else
        expect(read(pipes[0], &byte, 1), 1, 0);
}

static void *worker(void *unused)
{
    (void)unused;
    if (ended_by_signal())
        signal_me(SIGUSR2);
    if (!strcmp(call, "epoll_ignored"))
        signal_me(SIGWINCH);
    while (!over) {
        long long begin = now();
        if (woken_by_partner())
            one_woken_wait();
        else
            one_wait();
        errno = 0;
        if (now() - begin < WAIT_NS && !ended_by_signal() && !ended_by_tick())
            fail("ended before its time, in us", (now() - begin) / 1000);
        rounds++;
    }
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
}

int main(int argc, char **argv)
{
    pthread_t other;
    struct timeval tv = {0, WAIT_NS / 1000};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct epoll_event event = {.events = EPOLLIN};
    char path[] = "/tmp/vcsimg-waits-XXXXXX", fill[4096] = "";

    (void)argc;
    call = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    while (send(pair[1], fill, sizeof fill, MSG_DONTWAIT) > 0 && !strcmp(call, "send"))
        ;
    if (strcmp(call, "send")) {
        close(pair[0]);
        close(pair[1]);
        socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    }
    setsockopt(pair[1], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&name, sizeof name.sun_family); /* an abstract name that the kernel chooses */
    listen(listener, 1);
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (pipe(pipes))
        fail("pipe", 0);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, !strcmp(call, "epoll_event") ? pipes[0] : pair[0], &event);
    sem = semget(IPC_PRIVATE, 1, 0600);
    msg = msgget(IPC_PRIVATE, 0600);
    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    syscall(SYS_io_setup, 1, &aio);
    files[0] = mkstemp(path);
    files[1] = open(path, O_RDWR);
    unlink(path);
    pthread_create(&worker_thread, NULL, worker, NULL);
    if (woken_by_partner())
        pthread_create(&other, NULL, partner, NULL);
    puts("ready");
    if (getchar() == EOF)
        ;
    over = 1;
    pthread_join(worker_thread, NULL);
    semctl(sem, 0, IPC_RMID);
    msgctl(msg, IPC_RMID, NULL);
    printf("done %ld\n", (long)rounds);
}
