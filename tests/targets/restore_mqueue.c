/* POSIX message queues, with messages of several priorities; one without a name any more; one that a child has, too. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/wait.h>

int main(void) {
    char name[40], buffer[64];
    unsigned priority;
    snprintf(name, sizeof name, "/vcsimg-test-%d", getuid());
    mq_unlink(name); /* one that a program before us has left, when it was killed */
    struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 64}, found;
    mqd_t queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0640, &attributes), writer = mq_open(name, O_WRONLY);
    CHECK(queue >= 0 && writer >= 0);
    CHECK(mq_send(writer, "low", 4, 1) == 0 && mq_send(writer, "high", 5, 9) == 0 && mq_send(writer, "low too", 8, 1) == 0);
    char other[50];
    snprintf(other, sizeof other, "%s-gone", name);
    mqd_t gone = mq_open(other, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    CHECK(gone >= 0 && mq_unlink(other) == 0 && mq_send(gone, "still", 6, 0) == 0);
    mqd_t watched = mq_open(other, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    sigset_t set;
    CHECK(watched >= 0 && mq_unlink(other) == 0 && sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR1) == 0);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && mq_notify(watched, &event) == 0);
    int orders[2];
    CHECK(pipe(orders) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(read(orders[0], buffer, 1) == 1);
        _exit(mq_send(gone, "child", 6, 0) == 0 ? 7 : 8);
    }
    wait_to_be_restored();

    CHECK(mq_getattr(queue, &found) == 0 && found.mq_maxmsg == 5 && found.mq_msgsize == 64 && found.mq_curmsgs == 3);
    CHECK(found.mq_flags == O_NONBLOCK);
    CHECK(mq_receive(queue, buffer, 64, &priority) == 5 && priority == 9 && strcmp(buffer, "high") == 0);
    CHECK(mq_receive(queue, buffer, 64, &priority) == 4 && priority == 1 && strcmp(buffer, "low") == 0);
    CHECK(mq_receive(queue, buffer, 64, &priority) == 8 && strcmp(buffer, "low too") == 0);
    CHECK(mq_receive(queue, buffer, 64, &priority) < 0 && errno == EAGAIN);
    CHECK(mq_receive(writer, buffer, 64, &priority) < 0 && errno == EBADF);
    CHECK(mq_receive(gone, buffer, 64, &priority) == 6 && strcmp(buffer, "still") == 0);
    siginfo_t info;
    CHECK(mq_send(watched, "new", 4, 0) == 0 && sigwaitinfo(&set, &info) == SIGUSR1 && info.si_code == SI_MESGQ && info.si_pid == getpid());
    int status;
    CHECK(write(orders[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    CHECK(mq_receive(gone, buffer, 64, &priority) == 6 && strcmp(buffer, "child") == 0);
    mqd_t again = mq_open(name, O_RDWR);
    CHECK(again >= 0 && mq_send(again, "new", 4, 0) == 0 && mq_receive(queue, buffer, 64, &priority) == 4 && mq_unlink(name) == 0);
    return verified();
}
