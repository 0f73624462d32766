/* What does not come back, and so is named. Cases as in restore_cases.h, which are not verified; those that this kernel cannot have
   print "not here". */
#include "restore_cases.h"

static void not_here(void) { printf("not here\n"); fflush(stdout); pause(); }

CASE(named_session_keyring) {
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "mine") <= 0) not_here();
    if (syscall(SYS_add_key, "user", "key", "payload", 7, -3 /* KEY_SPEC_SESSION_KEYRING */) <= 0) not_here();
    restored();
}

static int timer_made[2];
static void *make_timer(void *unused) {
    timer_t id;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    CHECK(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &id) == 0 && write(timer_made[1], "x", 1) == 1);
    pause();
    return 0;
}
CASE(named_timer_of_a_thread) {
    char byte;
    pthread_t thread;
    CHECK(pipe(timer_made) == 0 && pthread_create(&thread, 0, make_timer, 0) == 0 && read(timer_made[0], &byte, 1) == 1);
    restored();
}

static int cut_pipe[2];
static void *write_much(void *unused) {
    static char much[1 << 20];
    if (write(cut_pipe[1], much, sizeof much) > 0) pause();
    return 0;
}
CASE(named_write_cut_short) { /* the pipe is full, a part is written, the rest waits */
    pthread_t thread;
    int size = 0;
    CHECK(pipe(cut_pipe) == 0 && pthread_create(&thread, 0, write_much, 0) == 0);
    while (size < fcntl(cut_pipe[1], F_GETPIPE_SZ)) { ioctl(cut_pipe[0], FIONREAD, &size); usleep(500); }
    restored();
}

static void *receive_all(void *fd) {
    char two[2];
    if (recv(*(int *)fd, two, 2, MSG_WAITALL) > 0) pause();
    return 0;
}
CASE(named_receive_cut_short) {
    pthread_t thread;
    int ends[2], size = 1;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && pthread_create(&thread, 0, receive_all, ends) == 0 && write(ends[1], "x", 1) == 1);
    while (size) { ioctl(ends[0], FIONREAD, &size); usleep(500); }
    restored();
}

CASE(named_urgent_data_unix) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    if (send(ends[0], "x", 1, MSG_OOB) != 1) not_here(); /* Linux 5.15 */
    restored();
}

CASE(named_socket_error) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), closed = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    CHECK(bind(closed, (void *)&at, size) == 0 && getsockname(closed, (void *)&at, &size) == 0);
    CHECK(connect(fd, (void *)&at, size) == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    if (errno == ECONNREFUSED) not_here();
    struct pollfd refused = {fd, POLLERR, 0};
    CHECK(poll(&refused, 1, -1) == 1);
    restored();
}

CASE(named_inotify_events) {
    int fd = inotify_init1(0);
    CHECK(fd >= 0 && inotify_add_watch(fd, ".", IN_CREATE) > 0);
    close(open("created", O_CREAT | O_WRONLY, 0600));
    restored();
}

static void *receive_two(void *fd) {
    char text[2][10];
    struct iovec vectors[2] = {{text[0], 10}, {text[1], 10}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = vectors, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = vectors + 1, .msg_iovlen = 1}}};
    if (recvmmsg(*(int *)fd, messages, 2, 0, 0) > 0) pause();
    return 0;
}
CASE(named_messages_cut_short) {
    pthread_t thread;
    int ends[2], size = 1;
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0 && pthread_create(&thread, 0, receive_two, ends) == 0 && write(ends[1], "x", 1) == 1);
    while (size) { ioctl(ends[0], FIONREAD, &size); usleep(500); }
    restored();
}
