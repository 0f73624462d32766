/* Unix sockets with data and a descriptor on the way: argv[1] is an empty directory. Receives everything afterwards. */
#include "state.h"
#include <sys/un.h>

static void send_descriptor(int socket, int fd)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {"with a descriptor", 17};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    CHECK(sendmsg(socket, &message, 0) == 17);
}

int main(int argc, char **argv)
{
    (void)argc;
    char buffer[1000];
    int stream[2], dgram[2], packet[2], half[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0);
    CHECK(write(stream[0], "first ", 6) == 6 && write(stream[0], "second", 6) == 6);
    send_descriptor(stream[0], dgram[1]);
    CHECK(write(stream[0], "last", 4) == 4);
    CHECK(write(dgram[0], "message", 7) == 7 && write(dgram[0], "another one", 11) == 11);
    CHECK(write(packet[0], "packet", 6) == 6 && write(packet[0], "p2", 2) == 2 && shutdown(packet[0], SHUT_WR) == 0);
    CHECK(shutdown(half[0], SHUT_WR) == 0);
    int big = 100000, timeout = 1;
    CHECK(setsockopt(stream[1], SOL_SOCKET, SO_PASSCRED, &timeout, sizeof timeout) == 0);
    CHECK(setsockopt(stream[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof big) == 0);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/listening", argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 7) == 0);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    int abstract = socket(AF_UNIX, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    int length = snprintf(address.sun_path + 1, 50, "vcsimg test %d", getpid());
    CHECK(bind(abstract, (struct sockaddr *)&address, sizeof(sa_family_t) + 1 + length) == 0);

    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d %d %d %d %d %d", stream[0], stream[1], dgram[0], dgram[1], packet[1], half[0], half[1],
             listener, client, abstract);
    ready(line);

    CHECK(read(stream[1], buffer, 12) == 12 && memcmp(buffer, "first second", 12) == 0);
    char control[200];
    struct iovec part = {buffer, sizeof buffer};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(stream[1], &message, 0) == 17);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    while (header != NULL && header->cmsg_type != SCM_RIGHTS)
        header = CMSG_NXTHDR(&message, header);
    CHECK(header != NULL);
    int passed;
    memcpy(&passed, CMSG_DATA(header), sizeof passed);
    CHECK(read(passed, buffer, 100) == 7 && read(dgram[1], buffer, 100) == 11);
    CHECK(read(stream[1], buffer, 100) == 4);
    CHECK(read(packet[1], buffer, 100) == 6 && read(packet[1], buffer, 100) == 2 && read(packet[1], buffer, 100) == 0);
    CHECK(read(half[1], buffer, 100) == 0);
    int offset;
    socklen_t size = sizeof offset;
    CHECK(getsockopt(stream[1], SOL_SOCKET, SO_PEEK_OFF, &offset, &size) == 0 && offset == -1);
    CHECK(accept(listener, NULL, NULL) >= 0);
    done();
}
