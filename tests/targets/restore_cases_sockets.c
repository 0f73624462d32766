/* Sockets, pipes, epoll, eventfd, inotify, pidfd. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
static struct sockaddr_in lo(int port) {
    struct sockaddr_in a = {AF_INET, htons(port), {htonl(0x7f000001)}};
    return a;
}
static int port_of(int s) {
    struct sockaddr_in6 a;
    socklen_t l = sizeof a;
    getsockname(s, (void *)&a, &l);
    return ntohs(a.sin6_port);
}
static int tcp_listen(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = lo(0);
    CHECK(!bind(s, (void *)&a, sizeof a));
    CHECK(!listen(s, 10));
    return s;
}
static void tcp_pair(int *c, int *s) {
    int l = tcp_listen();
    struct sockaddr_in a = lo(port_of(l));
    *c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!connect(*c, (void *)&a, sizeof a));
    *s = accept(l, 0, 0);
    CHECK(*s >= 0);
    close(l);
}
static char *rd(int s, char *b, int n) {
    int k = recv(s, b, n, MSG_DONTWAIT);
    b[k > 0 ? k : 0] = 0;
    return b;
}
static int udp(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = lo(0);
    CHECK(!bind(s, (void *)&a, sizeof a));
    return s;
}
static void un(struct sockaddr_un *a, const char *p) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    strcpy(a->sun_path, p);
}

CASE(unix_stream_pair) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write(s[0], "to one", 6);
    write(s[1], "to zero", 7);
    restored();
    char b[50];
    CHECK(!strcmp(rd(s[1], b, 49), "to one") && !strcmp(rd(s[0], b, 49), "to zero"));
    write(s[0], "x", 1);
    CHECK(!strcmp(rd(s[1], b, 49), "x"));
}

CASE(unix_seqpacket_pair) {
    int s[2];
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    send(s[0], "a", 1, 0);
    send(s[0], "", 0, 0);
    send(s[0], "bcd", 3, 0);
    restored();
    char b[50];
    CHECK(recv(s[1], b, 50, 0) == 1 && recv(s[1], b, 50, 0) == 0 && recv(s[1], b, 50, 0) == 3 && !memcmp(b, "bcd", 3));
    CHECK(recv(s[1], b, 50, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

CASE(unix_dgram_pair) {
    int s[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    send(s[0], "a", 1, 0);
    send(s[0], "", 0, 0);
    send(s[0], "bcd", 3, 0);
    restored();
    char b[50];
    CHECK(recv(s[1], b, 50, 0) == 1 && recv(s[1], b, 50, 0) == 0 && recv(s[1], b, 50, 0) == 3);
    send(s[1], "back", 4, 0);
    CHECK(recv(s[0], b, 50, 0) == 4);
}

CASE(unix_fds_passed) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    int f = open("pf", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(f, "file", 4);
    char c[CMSG_SPACE(4)] = {0};
    struct iovec v = {"m", 1};
    struct msghdr m = {0, 0, &v, 1, c, sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(4);
    memcpy(CMSG_DATA(h), &f, 4);
    CHECK(sendmsg(s[0], &m, 0) == 1);
    restored();
    char b;
    v.iov_base = &b;
    CHECK(recvmsg(s[1], &m, 0) == 1);
    h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_RIGHTS);
    int g;
    memcpy(&g, CMSG_DATA(h), 4);
    CHECK(lseek(g, 0, 1) == 4);
    lseek(g, 1, 0);
    CHECK(lseek(f, 0, 1) == 1);
}

CASE(unix_fds_passed_closed) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    int f = open("pf", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(f, "file", 4);
    char c[CMSG_SPACE(4)] = {0};
    struct iovec v = {"m", 1};
    struct msghdr m = {0, 0, &v, 1, c, sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(4);
    memcpy(CMSG_DATA(h), &f, 4);
    CHECK(sendmsg(s[0], &m, 0) == 1);
    close(f);
    restored();
    char b;
    v.iov_base = &b;
    CHECK(recvmsg(s[1], &m, 0) == 1);
    h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_RIGHTS);
    int g;
    memcpy(&g, CMSG_DATA(h), 4);
    CHECK(lseek(g, 0, 1) == 4);
    char d[5] = {0};
    CHECK(pread(g, d, 4, 0) == 4 && !strcmp(d, "file"));
}

CASE(unix_credentials_queued) {
    int s[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    int on = 1;
    setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, 4);
    send(s[0], "c", 1, 0);
    restored();
    char b, c[100];
    struct iovec v = {&b, 1};
    struct msghdr m = {0, 0, &v, 1, c, 100};
    on = 0;
    socklen_t l = 4;
    getsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, &l);
    CHECK(on == 1);
    CHECK(recvmsg(s[1], &m, 0) == 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_type == SCM_CREDENTIALS);
    struct ucred u;
    memcpy(&u, CMSG_DATA(h), sizeof u);
    CHECK(u.uid == getuid());
    CHECK(u.pid == getpid());
}

CASE(unix_peercred) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    restored();
    struct ucred u;
    socklen_t l = sizeof u;
    CHECK(!getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &u, &l));
    CHECK(u.uid == getuid() && u.gid == getgid());
    CHECK(u.pid == getpid());
}

CASE(unix_listening_path) {
    struct sockaddr_un a;
    un(&a, "sock");
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(l, (void *)&a, sizeof a) && !listen(l, 5));
    restored();
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(c, (void *)&a, sizeof a));
    int s = accept(l, 0, 0);
    CHECK(s >= 0);
    write(c, "hi", 2);
    char b[5];
    CHECK(read(s, b, 5) == 2);
    struct sockaddr_un g;
    socklen_t n = sizeof g;
    getsockname(l, (void *)&g, &n);
    CHECK(!strcmp(g.sun_path, "sock"));
}

CASE(unix_listening_abstract) {
    struct sockaddr_un a = {AF_UNIX};
    sprintf(a.sun_path + 1, "abs%d", getpid());
    socklen_t n = 3 + strlen(a.sun_path + 1);
    int l = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(!bind(l, (void *)&a, n) && !listen(l, 5));
    restored();
    int c = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(!connect(c, (void *)&a, n));
    CHECK(accept(l, 0, 0) >= 0);
}

CASE(unix_connected_path) {
    struct sockaddr_un a;
    un(&a, "sock");
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(l, (void *)&a, sizeof a) && !listen(l, 5));
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(c, (void *)&a, sizeof a));
    int s = accept(l, 0, 0);
    write(c, "queued", 6);
    write(s, "other", 5);
    restored();
    char b[50];
    CHECK(!strcmp(rd(s, b, 49), "queued") && !strcmp(rd(c, b, 49), "other"));
    struct sockaddr_un g = {0};
    socklen_t n = sizeof g;
    CHECK(!getpeername(c, (void *)&g, &n));
    CHECK(!strcmp(g.sun_path, "sock"));
    n = sizeof g;
    memset(&g, 0, sizeof g);
    CHECK(!getsockname(s, (void *)&g, &n));
    CHECK(!strcmp(g.sun_path, "sock"));
    int d = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(d, (void *)&a, sizeof a) && accept(l, 0, 0) >= 0);
}

CASE(unix_connected_bound_client) {
    struct sockaddr_un a = {AF_UNIX}, cl = {AF_UNIX};
    sprintf(a.sun_path + 1, "srv%d", getpid());
    sprintf(cl.sun_path + 1, "cli%d", getpid());
    socklen_t n = 3 + strlen(a.sun_path + 1);
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(l, (void *)&a, n) && !listen(l, 5));
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(c, (void *)&cl, n);
    CHECK(!connect(c, (void *)&a, n));
    int s = accept(l, 0, 0);
    restored();
    struct sockaddr_un g = {0};
    socklen_t k = sizeof g;
    CHECK(!getpeername(s, (void *)&g, &k) && k == n && !memcmp(&g, &cl, n));
    write(c, "x", 1);
    char b[5];
    CHECK(!strcmp(rd(s, b, 4), "x"));
}

CASE(unix_connected_listener_gone) {
    struct sockaddr_un a;
    un(&a, "sock");
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(l, (void *)&a, sizeof a) && !listen(l, 5));
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(c, (void *)&a, sizeof a));
    int s = accept(l, 0, 0);
    close(l);
    unlink("sock");
    write(c, "queued", 6);
    restored();
    char b[50];
    CHECK(!strcmp(rd(s, b, 49), "queued"));
    write(s, "back", 4);
    CHECK(!strcmp(rd(c, b, 49), "back"));
}

CASE(unix_dgram_bound_queue) {
    struct sockaddr_un a, f, g = {0};
    un(&a, "srv");
    un(&f, "cli");
    int s = socket(AF_UNIX, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(!bind(s, (void *)&a, sizeof a) && !bind(c, (void *)&f, sizeof f));
    CHECK(sendto(c, "hello", 5, 0, (void *)&a, sizeof a) == 5);
    restored();
    char b[50];
    socklen_t n = sizeof g;
    CHECK(recvfrom(s, b, 50, 0, (void *)&g, &n) == 5);
    CHECK(!strcmp(g.sun_path, "cli"));
    CHECK(sendto(s, "re", 2, 0, (void *)&g, n) == 2 && recv(c, b, 50, 0) == 2);
}

CASE(unix_dgram_connected_server) {
    struct sockaddr_un a;
    un(&a, "srv");
    int s = socket(AF_UNIX, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(!bind(s, (void *)&a, sizeof a) && !connect(c, (void *)&a, sizeof a));
    send(c, "one", 3, 0);
    restored();
    char b[50];
    CHECK(recv(s, b, 50, 0) == 3);
    CHECK(send(c, "two", 3, 0) == 3 && recv(s, b, 50, 0) == 3);
}

CASE(unix_dgram_client_first) {
    struct sockaddr_un a;
    un(&a, "srv");
    int c = socket(AF_UNIX, SOCK_DGRAM, 0), s = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(!bind(s, (void *)&a, sizeof a) && !connect(c, (void *)&a, sizeof a));
    struct sockaddr_un f;
    un(&f, "cl");
    bind(c, (void *)&f, sizeof f);
    connect(s, (void *)&f, sizeof f);
    send(c, "one", 3, 0);
    send(s, "four", 4, 0);
    restored();
    char b[50];
    CHECK(recv(s, b, 50, 0) == 3 && recv(c, b, 50, 0) == 4);
    CHECK(send(c, "two", 3, 0) == 3 && recv(s, b, 50, 0) == 3);
    CHECK(send(s, "two", 3, 0) == 3 && recv(c, b, 50, 0) == 3);
}

CASE(unix_shutdown_wr) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write(s[0], "last", 4);
    shutdown(s[0], SHUT_WR);
    restored();
    char b[50];
    CHECK(read(s[1], b, 50) == 4 && read(s[1], b, 50) == 0);
    CHECK(send(s[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    CHECK(write(s[1], "x", 1) == 1 && read(s[0], b, 50) == 1);
}

CASE(unix_peer_closed) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write(s[1], "bye", 3);
    close(s[1]);
    restored();
    char b[50];
    CHECK(read(s[0], b, 50) == 3 && read(s[0], b, 50) == 0);
    CHECK(send(s[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

CASE(unix_options) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    int v = 100000;
    setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, 4);
    struct timeval t = {7, 500000};
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    fcntl(s[1], F_SETFL, O_NONBLOCK);
    int po = 5;
    setsockopt(s[0], SOL_SOCKET, SO_PEEK_OFF, &po, 4);
    restored();
    socklen_t l = 4;
    v = 0;
    getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, &l);
    CHECK(v == 200000);
    memset(&t, 0, sizeof t);
    l = sizeof t;
    getsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, &l);
    CHECK(t.tv_sec == 7 && t.tv_usec == 500000);
    CHECK(fcntl(s[1], F_GETFL) & O_NONBLOCK && !(fcntl(s[0], F_GETFL) & O_NONBLOCK));
    l = 4;
    po = 0;
    getsockopt(s[0], SOL_SOCKET, SO_PEEK_OFF, &po, &l);
    CHECK(po == 5);
}

CASE(unix_bound_not_listening) {
    struct sockaddr_un a;
    un(&a, "bnd");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(s, (void *)&a, sizeof a));
    restored();
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(c, (void *)&a, sizeof a) == -1 && errno == ECONNREFUSED);
    CHECK(!listen(s, 1) && !connect(c, (void *)&a, sizeof a));
}

CASE(unix_fork_pair) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    pid_t c = fork();
    if (!c) {
        close(s[0]);
        char b[10];
        int n;
        while ((n = read(s[1], b, 10)) > 0) write(s[1], b, n);
        _exit(0);
    }
    close(s[1]);
    usleep(20000);
    restored();
    write(s[0], "echo", 4);
    char b[10];
    CHECK(read(s[0], b, 10) == 4);
    close(s[0]);
    int st;
    CHECK(waitpid(c, &st, 0) == c && !st);
}

CASE(udp_queued_source) {
    int s = udp(), c = udp();
    struct sockaddr_in a = lo(port_of(s)), f;
    sendto(c, "one", 3, 0, (void *)&a, sizeof a);
    sendto(c, "", 0, 0, (void *)&a, sizeof a);
    sendto(c, "three", 5, 0, (void *)&a, sizeof a);
    restored();
    char b[50];
    socklen_t l = sizeof f;
    CHECK(recvfrom(s, b, 50, 0, (void *)&f, &l) == 3 && ntohs(f.sin_port) == port_of(c));
    CHECK(recv(s, b, 50, 0) == 0 && recv(s, b, 50, 0) == 5);
}

CASE(udp_queued_source_gone) {
    int s = udp(), c = udp();
    int p = port_of(c);
    struct sockaddr_in a = lo(port_of(s)), f;
    sendto(c, "one", 3, 0, (void *)&a, sizeof a);
    close(c);
    restored();
    char b[50];
    socklen_t l = sizeof f;
    CHECK(recvfrom(s, b, 50, 0, (void *)&f, &l) == 3);
    CHECK(ntohs(f.sin_port) == p);
}

CASE(udp_connected_pair) {
    int s = udp(), c = udp();
    struct sockaddr_in a = lo(port_of(s)), d = lo(port_of(c));
    CHECK(!connect(c, (void *)&a, sizeof a) && !connect(s, (void *)&d, sizeof d));
    send(c, "to s", 4, 0);
    send(s, "to c!", 5, 0);
    restored();
    char b[50];
    CHECK(recv(s, b, 50, 0) == 4 && recv(c, b, 50, 0) == 5);
    CHECK(send(c, "x", 1, 0) == 1 && recv(s, b, 50, 0) == 1);
}

CASE(udp_unbound_autobound) {
    int s = udp();
    int c = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = lo(port_of(s)), f;
    sendto(c, "one", 3, 0, (void *)&a, sizeof a);
    int p = port_of(c);
    restored();
    CHECK(port_of(c) == p);
    char b[9];
    socklen_t l = sizeof f;
    CHECK(recvfrom(s, b, 9, 0, (void *)&f, &l) == 3 && ntohs(f.sin_port) == p);
    CHECK(sendto(s, "re", 2, 0, (void *)&f, l) == 2 && recv(c, b, 9, 0) == 2);
}

CASE(udp_options) {
    int s = udp();
    int on = 1, v;
    setsockopt(s, SOL_SOCKET, SO_BROADCAST, &on, 4);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, 4);
    setsockopt(s, IPPROTO_IP, IP_PKTINFO, &on, 4);
    v = 33;
    setsockopt(s, IPPROTO_IP, IP_TTL, &v, 4);
    v = 0x10;
    setsockopt(s, IPPROTO_IP, IP_TOS, &v, 4);
    v = 3;
    setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &v, 4);
    setsockopt(s, SOL_SOCKET, SO_TIMESTAMPNS, &on, 4);
    restored();
    socklen_t l = 4;
    v = 0;
    getsockopt(s, SOL_SOCKET, SO_BROADCAST, &v, &l);
    CHECK(v == 1);
    getsockopt(s, IPPROTO_IP, IP_PKTINFO, &v, &l);
    CHECK(v == 1);
    getsockopt(s, IPPROTO_IP, IP_TTL, &v, &l);
    CHECK(v == 33);
    getsockopt(s, IPPROTO_IP, IP_TOS, &v, &l);
    CHECK(v == 0x10);
    getsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &v, &l);
    CHECK(v == 3);
    getsockopt(s, SOL_SOCKET, SO_TIMESTAMPNS, &v, &l);
    CHECK(v == 1);
}

CASE(udp6) {
    int s = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 a = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    if (bind(s, (void *)&a, sizeof a)) {
        restored();
        return;
    }
    int c = socket(AF_INET6, SOCK_DGRAM, 0);
    bind(c, (void *)&a, sizeof a);
    a.sin6_port = htons(port_of(s));
    CHECK(!connect(c, (void *)&a, sizeof a));
    send(c, "six", 3, 0);
    restored();
    char b[9];
    struct sockaddr_in6 f;
    socklen_t l = sizeof f;
    CHECK(recvfrom(s, b, 9, 0, (void *)&f, &l) == 3 && ntohs(f.sin6_port) == port_of(c));
}

CASE(tcp_listening) {
    int l = tcp_listen();
    int p = port_of(l);
    restored();
    CHECK(port_of(l) == p);
    struct sockaddr_in a = lo(p);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!connect(c, (void *)&a, sizeof a) && accept(l, 0, 0) >= 0);
}

CASE(tcp_bound_only) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = lo(0);
    bind(s, (void *)&a, sizeof a);
    int p = port_of(s);
    restored();
    CHECK(port_of(s) == p);
    CHECK(!listen(s, 1));
}

CASE(tcp_pair_queued) {
    int c, s;
    tcp_pair(&c, &s);
    write(c, "to server", 9);
    write(s, "to client", 9);
    until_arrived(s, 9);
    until_arrived(c, 9);
    restored();
    char b[50];
    CHECK(!strcmp(rd(s, b, 49), "to server") && !strcmp(rd(c, b, 49), "to client"));
    write(c, "x", 1);
    CHECK(read(s, b, 1) == 1);
    struct sockaddr_in g, h;
    socklen_t n = sizeof g;
    getpeername(c, (void *)&g, &n);
    getsockname(s, (void *)&h, &n);
    CHECK(g.sin_port == h.sin_port);
}

CASE(tcp_pair_addresses) {
    int c, s;
    tcp_pair(&c, &s);
    int p = port_of(c), q = port_of(s);
    restored();
    CHECK(port_of(c) == p && port_of(s) == q);
}

CASE(tcp_pair_full) {
    int c, s;
    tcp_pair(&c, &s);
    fcntl(c, F_SETFL, O_NONBLOCK);
    char b[4096];
    long n = 0, k;
    for (int i = 0; i < 4096; i++) b[i] = i % 251;
    for (int t = 0; t < 20; t++) {
        while ((k = write(c, b, 4096)) > 0) n += k;
        usleep(2000);
    }
    restored();
    long m = 0;
    static char buf[65536];
    while (m < n) {
        k = read(s, buf, 65536);
        CHECK(k > 0);
        m += k;
    }
    CHECK(m == n);
}

CASE(tcp_half_closed) {
    int c, s;
    tcp_pair(&c, &s);
    write(c, "end", 3);
    shutdown(c, SHUT_WR);
    until_shut(s);
    restored();
    char b[9];
    CHECK(read(s, b, 9) == 3 && read(s, b, 9) == 0);
    CHECK(write(s, "still", 5) == 5 && read(c, b, 9) == 5);
    close(s);
    CHECK(read(c, b, 9) == 0);
}

CASE(tcp_peer_closed) {
    int c, s;
    tcp_pair(&c, &s);
    write(c, "end", 3);
    close(c);
    until_shut(s);
    restored();
    char b[9];
    CHECK(read(s, b, 9) == 3 && read(s, b, 9) == 0);
}

CASE(tcp_both_shutdown) {
    int c, s;
    tcp_pair(&c, &s);
    shutdown(c, SHUT_WR);
    shutdown(s, SHUT_WR);
    until_shut(s);
    until_shut(c);
    restored();
    char b[9];
    CHECK(read(s, b, 9) == 0 && read(c, b, 9) == 0);
    CHECK(send(c, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

CASE(tcp_options) {
    int c, s;
    tcp_pair(&c, &s);
    int on = 1, v = 44;
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, 4);
    setsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &on, 4);
    setsockopt(c, IPPROTO_TCP, TCP_KEEPIDLE, &v, 4);
    struct linger l = {1, 9};
    setsockopt(c, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    v = 5000;
    setsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, 4);
    v = 7;
    setsockopt(s, IPPROTO_TCP, TCP_KEEPCNT, &v, 4);
    setsockopt(s, SOL_SOCKET, SO_OOBINLINE, &on, 4);
    restored();
    socklen_t n = 4;
    v = 0;
    getsockopt(c, IPPROTO_TCP, TCP_NODELAY, &v, &n);
    CHECK(v);
    getsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &v, &n);
    CHECK(v == 1);
    getsockopt(c, IPPROTO_TCP, TCP_KEEPIDLE, &v, &n);
    CHECK(v == 44);
    getsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, &n);
    CHECK(v == 5000);
    getsockopt(s, IPPROTO_TCP, TCP_KEEPCNT, &v, &n);
    CHECK(v == 7);
    getsockopt(s, SOL_SOCKET, SO_OOBINLINE, &v, &n);
    CHECK(v == 1);
    n = sizeof l;
    l.l_linger = 0;
    getsockopt(c, SOL_SOCKET, SO_LINGER, &l, &n);
    CHECK(l.l_onoff && l.l_linger == 9);
}

CASE(tcp_listener_with_connections) {
    int l = tcp_listen();
    struct sockaddr_in a = lo(port_of(l));
    int c[3], s[3];
    for (int i = 0; i < 3; i++) {
        c[i] = socket(AF_INET, SOCK_STREAM, 0);
        connect(c[i], (void *)&a, sizeof a);
        s[i] = accept(l, 0, 0);
        char x = '0' + i;
        write(c[i], &x, 1);
    }
    restored();
    for (int i = 0; i < 3; i++) {
        char x;
        CHECK(read(s[i], &x, 1) == 1 && x == '0' + i);
    }
    int d = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!connect(d, (void *)&a, sizeof a) && accept(l, 0, 0) >= 0);
}

CASE(tcp6_pair) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = {AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT};
    if (bind(l, (void *)&a, sizeof a)) {
        restored();
        return;
    }
    listen(l, 1);
    a.sin6_port = htons(port_of(l));
    int c = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(!connect(c, (void *)&a, sizeof a));
    int s = accept(l, 0, 0);
    write(c, "six", 3);
    restored();
    char b[9];
    CHECK(read(s, b, 9) == 3);
}

CASE(netlink_bound) {
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct sockaddr_nl a = {AF_NETLINK, 0, 0, RTMGRP_LINK};
    CHECK(!bind(s, (void *)&a, sizeof a));
    struct sockaddr_nl g;
    socklen_t n = sizeof g;
    getsockname(s, (void *)&g, &n);
    unsigned pid = g.nl_pid;
    restored();
    n = sizeof g;
    CHECK(!getsockname(s, (void *)&g, &n));
    CHECK(g.nl_groups == RTMGRP_LINK);
    CHECK(g.nl_pid == pid);
    struct { struct nlmsghdr h; struct rtgenmsg m; } q = {{sizeof q, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1}, {AF_UNSPEC}};
    CHECK(send(s, &q, sizeof q, 0) == sizeof q);
    char b[8192];
    CHECK(recv(s, b, 8192, 0) > 0);
}

CASE(bpf_filter) {
    int s = udp(), c = udp();
    struct { uint16_t code; uint8_t jt, jf; uint32_t k; } f[] = {{0x30, 0, 0, 8}, {0x15, 0, 1, 'k'}, {6, 0, 0, 0xffff}, {6, 0, 0, 0}};
    struct { uint16_t len; void *p; } pr = {4, f};
    CHECK(!setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &pr, sizeof pr));
    restored();
    struct sockaddr_in a = lo(port_of(s));
    sendto(c, "drop", 4, 0, (void *)&a, sizeof a);
    sendto(c, "keep", 4, 0, (void *)&a, sizeof a);
    char b[9] = {0};
    CHECK(recv(s, b, 9, 0) == 4 && !strcmp(b, "keep"));
}

CASE(pipe_data) {
    int p[2];
    pipe(p);
    write(p[1], "abc", 3);
    restored();
    char b[9];
    CHECK(read(p[0], b, 9) == 3);
    write(p[1], "z", 1);
    CHECK(read(p[0], b, 9) == 1);
    close(p[1]);
    CHECK(read(p[0], b, 9) == 0);
}

CASE(pipe_full_size) {
    int p[2];
    pipe2(p, O_NONBLOCK);
    fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
    char b[4096];
    long n = 0, k;
    memset(b, 'p', 4096);
    while ((k = write(p[1], b, 4096)) > 0) n += k;
    restored();
    CHECK(fcntl(p[0], F_GETPIPE_SZ) == 1 << 20);
    CHECK(write(p[1], b, 1) == -1 && errno == EAGAIN);
    long m = 0;
    while ((k = read(p[0], b, 4096)) > 0) m += k;
    CHECK(m == n);
}

CASE(pipe_packets) {
    int p[2];
    if (pipe2(p, O_DIRECT)) {
        restored();
        return;
    }
    write(p[1], "one", 3);
    write(p[1], "second", 6);
    restored();
    char b[50];
    CHECK(read(p[0], b, 50) == 3 && read(p[0], b, 50) == 6);
    CHECK(fcntl(p[1], F_GETFL) & O_DIRECT);
    write(p[1], "a", 1);
    write(p[1], "b", 1);
    CHECK(read(p[0], b, 50) == 1);
}

CASE(pipe_writer_closed) {
    int p[2];
    pipe(p);
    write(p[1], "rest", 4);
    close(p[1]);
    restored();
    char b[9];
    CHECK(read(p[0], b, 9) == 4 && read(p[0], b, 9) == 0);
}

CASE(pipe_reader_closed) {
    int p[2];
    pipe(p);
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    restored();
    CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
}

CASE(pipe_one_end_nonblock) {
    int p[2];
    pipe(p);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    restored();
    char b;
    CHECK(read(p[0], &b, 1) == -1 && errno == EAGAIN);
    CHECK(!(fcntl(p[1], F_GETFL) & O_NONBLOCK));
}

CASE(pipe_reopened_rdwr) {
    int p[2];
    pipe(p);
    char n[50];
    sprintf(n, "/proc/self/fd/%d", p[0]);
    int w = open(n, O_RDWR);
    CHECK(w >= 0);
    close(p[1]);
    write(w, "x", 1);
    restored();
    char b;
    CHECK(read(p[0], &b, 1) == 1);
    CHECK(write(w, "y", 1) == 1 && read(w, &b, 1) == 1 && b == 'y');
}

CASE(epoll_edge_oneshot) {
    int e = epoll_create1(EPOLL_CLOEXEC), a = eventfd(0, EFD_NONBLOCK), b = eventfd(1, 0), c = eventfd(1, 0);
    struct epoll_event v = {.events = EPOLLIN, .data.u64 = 1}, out[5];
    epoll_ctl(e, EPOLL_CTL_ADD, a, &v);
    v.events = EPOLLIN | EPOLLET;
    v.data.u64 = 2;
    epoll_ctl(e, EPOLL_CTL_ADD, b, &v);
    v.events = EPOLLIN | EPOLLONESHOT;
    v.data.u64 = 3;
    epoll_ctl(e, EPOLL_CTL_ADD, c, &v);
    CHECK(epoll_wait(e, out, 5, 0) == 2 && epoll_wait(e, out, 5, 0) == 0);
    restored();
    CHECK(epoll_wait(e, out, 5, 0) == 0);
    uint64_t one = 1;
    write(b, &one, 8);
    CHECK(epoll_wait(e, out, 5, 0) == 1 && out[0].data.u64 == 2);
    v.events = EPOLLIN;
    CHECK(!epoll_ctl(e, EPOLL_CTL_MOD, c, &v));
    CHECK(epoll_wait(e, out, 5, 0) == 1 && out[0].data.u64 == 3);
}

CASE(epoll_edge_untold) {
    int e = epoll_create1(0), b = eventfd(1, 0);
    struct epoll_event v = {.events = EPOLLIN | EPOLLET, .data.u64 = 2}, out[5];
    epoll_ctl(e, EPOLL_CTL_ADD, b, &v);
    restored();
    CHECK(epoll_wait(e, out, 5, 0) == 1 && epoll_wait(e, out, 5, 0) == 0);
}

CASE(epoll_nested) {
    int e = epoll_create1(0), f = epoll_create1(0), a = eventfd(0, 0);
    struct epoll_event v = {.events = EPOLLIN, .data.u64 = 1}, out[5];
    epoll_ctl(f, EPOLL_CTL_ADD, a, &v);
    v.data.u64 = 9;
    epoll_ctl(e, EPOLL_CTL_ADD, f, &v);
    restored();
    CHECK(epoll_wait(e, out, 5, 0) == 0);
    uint64_t one = 1;
    write(a, &one, 8);
    CHECK(epoll_wait(e, out, 5, 0) == 1 && out[0].data.u64 == 9);
}

CASE(epoll_dup_target) {
    int e = epoll_create1(0), a = eventfd(0, 0);
    int d = dup(a);
    struct epoll_event v = {.events = EPOLLIN, .data.u64 = 1}, out[5];
    epoll_ctl(e, EPOLL_CTL_ADD, a, &v);
    v.data.u64 = 2;
    epoll_ctl(e, EPOLL_CTL_ADD, d, &v);
    restored();
    uint64_t one = 1;
    write(a, &one, 8);
    CHECK(epoll_wait(e, out, 5, 0) == 2);
    CHECK(!epoll_ctl(e, EPOLL_CTL_DEL, d, 0));
}

CASE(epoll_renumbered_target) {
    int e = epoll_create1(0), a = eventfd(0, 0);
    struct epoll_event v = {.events = EPOLLIN, .data.u64 = 1}, out[5];
    epoll_ctl(e, EPOLL_CTL_ADD, a, &v);
    int d = dup2(a, 50);
    close(a);
    int other = open("/dev/null", O_RDONLY);
    CHECK(other == a);
    restored();
    uint64_t one = 1;
    write(d, &one, 8);
    CHECK(epoll_wait(e, out, 5, 0) == 1 && out[0].data.u64 == 1);
}

CASE(epoll_fork) {
    int e = epoll_create1(0), p[2];
    pipe(p);
    struct epoll_event v = {.events = EPOLLIN, .data.u64 = 1}, out[5];
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &v);
    int g[2];
    pipe(g);
    pid_t c = fork();
    if (!c) {
        char b;
        close(g[1]);
        read(g[0], &b, 1);
        _exit(epoll_wait(e, out, 5, 0));
    }
    usleep(10000);
    restored();
    write(p[1], "x", 1);
    write(g[1], "x", 1);
    int st;
    waitpid(c, &st, 0);
    CHECK(WEXITSTATUS(st) == 1);
}

CASE(eventfd_semaphore_max) {
    int a = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK);
    uint64_t m = 0xfffffffffffffffeull, v;
    write(b, &m, 8);
    restored();
    CHECK(read(a, &v, 8) == 8 && v == 1);
    m = 1;
    CHECK(write(b, &m, 8) == -1 && errno == EAGAIN);
    CHECK(read(b, &v, 8) == 8 && v == 0xfffffffffffffffeull);
}

CASE(inotify_dir) {
    int i = inotify_init1(IN_NONBLOCK);
    mkdir("w", 0755);
    int wd = inotify_add_watch(i, "w", IN_CREATE | IN_DELETE);
    restored();
    close(open("w/new", O_CREAT | O_WRONLY, 0600));
    char b[4096];
    int n = read(i, b, 4096);
    struct inotify_event *e = (void *)b;
    CHECK(n > 0 && e->mask == IN_CREATE && e->wd == wd && !strcmp(e->name, "new"));
    int w2 = inotify_add_watch(i, ".", IN_CREATE);
    CHECK(w2 == wd + 1);
}

CASE(pidfd_child) {
    pid_t c = fork();
    if (!c) {
        pause();
        _exit(0);
    }
    int f = syscall(434, c, 0);
    usleep(10000);
    restored();
    struct pollfd p = {f, POLLIN};
    CHECK(poll(&p, 1, 0) == 0);
    CHECK(!syscall(424, f, SIGTERM, 0, 0));
    CHECK(poll(&p, 1, -1) == 1);
    int st;
    CHECK(waitpid(c, &st, 0) == c && WTERMSIG(st) == SIGTERM);
}

CASE(pidfd_zombie) {
    pid_t c = fork();
    if (!c) _exit(5);
    int f = syscall(434, c, 0);
    until_ended(c);
    restored();
    struct pollfd p = {f, POLLIN};
    CHECK(poll(&p, 1, 0) == 1);
    siginfo_t i;
    CHECK(!waitid(3, f, &i, WEXITED) && i.si_status == 5);
}

CASE(pidfd_reaped) {
    pid_t c = fork();
    if (!c) _exit(5);
    int f = syscall(434, c, 0);
    waitpid(c, 0, 0);
    restored();
    struct pollfd p = {f, POLLIN};
    CHECK(poll(&p, 1, 0) == 1);
}

CASE(sock_shut_down) {
    int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0);
    int l = socket(AF_INET, SOCK_STREAM, 0), a = socket(AF_INET, SOCK_STREAM, 0), b, on = 1;
    struct sockaddr_in s = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof s;
    char c;
    CHECK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, 4) == 0); /* the port is kept for a while when this is killed */
    CHECK(bind(l, (void *)&s, n) == 0 && listen(l, 1) == 0 && getsockname(l, (void *)&s, &n) == 0);
    CHECK(connect(a, (void *)&s, n) == 0 && (b = accept(l, 0, 0)) >= 0 && shutdown(a, SHUT_RD) == 0);
    CHECK(connect(u, (void *)&s, n) == 0 && shutdown(u, SHUT_RDWR) == 0);
    CHECK(connect(v, (void *)&s, n) == 0 && shutdown(v, SHUT_WR) == 0);
    restored();
    CHECK(recv(u, &c, 1, 0) == 0 && send(u, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    CHECK(recv(v, &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN && send(v, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    CHECK(recv(a, &c, 1, MSG_DONTWAIT) == 0 && send(a, "x", 1, 0) == 1 && recv(b, &c, 1, 0) == 1);
}

CASE(sock_rare_options) {
    struct { int level, number, value; } wanted[] = {
        {SOL_SOCKET, 45, 1}, {SOL_SOCKET, 63, 1}, {IPPROTO_IPV6, 60, 1}, {IPPROTO_IPV6, 77, 1}, {IPPROTO_IPV6, 33, 1}, {IPPROTO_IPV6, 11, 1},
        {SOL_SOCKET, 44, 1},
    };
    enum { COUNT = sizeof wanted / sizeof *wanted };
    int u = socket(AF_INET6, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), value, mss = 700, has[COUNT];
    unsigned char sticky[8] = {0, 0, 1, 4}, found[64];
    uint64_t rate = 123456, got = 0;
    socklen_t n = 4;
    CHECK(u >= 0 && t >= 0);
    CHECK(setsockopt(u, SOL_SOCKET, 47, &rate, 8) == 0 && setsockopt(t, IPPROTO_TCP, TCP_MAXSEG, &mss, 4) == 0 && listen(t, 1) == 0);
    for (int i = 0; i < COUNT; i++) has[i] = setsockopt(u, wanted[i].level, wanted[i].number, &wanted[i].value, 4) == 0; /* not every kernel */
    int options = setsockopt(u, IPPROTO_IPV6, 59, sticky, 8) == 0; /* needs privilege */
    restored();
    for (int i = 0; i < COUNT; i++) {
        CHECK(!has[i] || getsockopt(u, wanted[i].level, wanted[i].number, &value, &n) == 0);
        CHECK(!has[i] || value == wanted[i].value);
    }
    CHECK(getsockopt(t, IPPROTO_TCP, TCP_MAXSEG, &value, &n) == 0 && value == mss);
    n = 8;
    CHECK(getsockopt(u, SOL_SOCKET, 47, &got, &n) == 0 && got == rate);
    n = 64;
    CHECK(!options || (getsockopt(u, IPPROTO_IPV6, 59, found, &n) == 0 && n == 8 && !memcmp(found, sticky, 8)));
}

CASE(udp_multicast) {
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
    struct ip_mreqn any = {.imr_multiaddr.s_addr = inet_addr("239.1.2.5"), .imr_ifindex = 1};
    struct ip_mreq_source only = {{inet_addr("239.1.2.4")}, {htonl(INADDR_LOOPBACK)}, {inet_addr("10.1.1.1")}}, blocked = only;
    struct ipv6_mreq six = {.ipv6mr_interface = 1};
    blocked.imr_multiaddr = any.imr_multiaddr;
    CHECK(setsockopt(a, 0, IP_ADD_SOURCE_MEMBERSHIP, &only, sizeof only) == 0);
    CHECK(setsockopt(a, 0, IP_ADD_MEMBERSHIP, &any, sizeof any) == 0 && setsockopt(a, 0, IP_BLOCK_SOURCE, &blocked, sizeof blocked) == 0);
    int has6 = inet_pton(AF_INET6, "ff15::1234", &six.ipv6mr_multiaddr) == 1 && setsockopt(c, IPPROTO_IPV6, IPV6_JOIN_GROUP, &six, sizeof six) == 0;
    restored();
    CHECK(setsockopt(a, 0, IP_DROP_SOURCE_MEMBERSHIP, &only, sizeof only) == 0);
    CHECK(setsockopt(a, 0, IP_UNBLOCK_SOURCE, &blocked, sizeof blocked) == 0 && setsockopt(a, 0, IP_DROP_MEMBERSHIP, &any, sizeof any) == 0);
    CHECK(setsockopt(b, 0, IP_DROP_MEMBERSHIP, &any, sizeof any) == -1 && errno == EADDRNOTAVAIL);
    CHECK(!has6 || setsockopt(c, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &six, sizeof six) == 0);
}

CASE(unix_unlinked_and_connected_to_itself) {
    int l = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un gone = {AF_UNIX, "gone.sock"}, self = {AF_UNIX, "self.sock"}, found;
    socklen_t n = sizeof found;
    char text[5];
    CHECK(bind(l, (void *)&gone, sizeof gone) == 0 && listen(l, 1) == 0 && unlink("gone.sock") == 0);
    CHECK(bind(d, (void *)&self, sizeof self) == 0 && connect(d, (void *)&self, sizeof self) == 0 && send(d, "me", 2, 0) == 2);
    restored();
    CHECK(access("gone.sock", F_OK) == -1 && getsockname(l, (void *)&found, &n) == 0 && !strcmp(found.sun_path, "gone.sock"));
    CHECK(recv(d, text, 5, 0) == 2 && send(d, "me", 2, 0) == 2 && recv(d, text, 5, 0) == 2);
}

CASE(unix_folder_gone) {
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = {AF_UNIX}, found;
    socklen_t n = sizeof found;
    char outer[20], inner[30];
    sprintf(outer, "old%d", getpid()), sprintf(inner, "%s/inner", outer), sprintf(a.sun_path, "%s/sock", inner);
    CHECK(mkdir(outer, 0700) == 0 && mkdir(inner, 0700) == 0 && bind(l, (void *)&a, sizeof a) == 0 && listen(l, 1) == 0);
    CHECK(unlink(a.sun_path) == 0 && rmdir(inner) == 0 && rmdir(outer) == 0);
    restored();
    CHECK(getsockname(l, (void *)&found, &n) == 0 && !strcmp(found.sun_path, a.sun_path) && access(outer, F_OK) == -1);
}

CASE(sock_not_accepted_yet) {
    int l = socket(AF_INET, SOCK_STREAM, 0), a[2], b, on = 1;
    struct sockaddr_in s = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof s;
    char c;
    CHECK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, 4) == 0);
    CHECK(bind(l, (void *)&s, n) == 0 && listen(l, 5) == 0 && getsockname(l, (void *)&s, &n) == 0);
    for (int i = 0; i < 2; i++) CHECK((a[i] = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(a[i], (void *)&s, n) == 0);
    restored();
    for (int i = 0; i < 2; i++) CHECK(send(a[i], "y", 1, 0) == 1);
    for (int i = 0; i < 2; i++) CHECK((b = accept(l, 0, 0)) >= 0 && recv(b, &c, 1, 0) == 1 && c == 'y');
}

CASE(sock_ipv4_client_of_ipv6_server) {
    int l = socket(AF_INET6, SOCK_STREAM, 0), a = socket(AF_INET, SOCK_STREAM, 0), b, off = 0, on = 1;
    struct sockaddr_in6 s = {.sin6_family = AF_INET6};
    struct sockaddr_in t = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof s;
    char c[5];
    if (l < 0) { restored(); return; } /* no IPv6 */
    CHECK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, 4) == 0);
    CHECK(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &off, 4) == 0 && bind(l, (void *)&s, n) == 0 && listen(l, 1) == 0);
    CHECK(getsockname(l, (void *)&s, &n) == 0);
    t.sin_port = s.sin6_port;
    CHECK(connect(a, (void *)&t, sizeof t) == 0 && (b = accept(l, 0, 0)) >= 0 && write(a, "hi", 2) == 2);
    until_arrived(b, 2);
    restored();
    CHECK(recv(b, c, 5, 0) == 2 && write(b, "yo", 2) == 2 && recv(a, c, 5, 0) == 2);
    n = sizeof s;
    CHECK(getsockname(b, (void *)&s, &n) == 0 && s.sin6_family == AF_INET6);
}

CASE(unix_memory_file_passed_closed) {
    int pair[2], fd = memfd_create("passed", MFD_ALLOW_SEALING), got;
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 'm', text[9] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {0, 0, &vector, 1, control, sizeof control, 0};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(fd, "memory", 6) == 6 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(pair[0], &message, 0) == 1 && close(fd) == 0);
    restored();
    CHECK(recvmsg(pair[1], &message, 0) == 1);
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
    CHECK(pread(got, text, 8, 0) == 6 && !strcmp(text, "memory") && lseek(got, 0, SEEK_CUR) == 6 && fcntl(got, F_GET_SEALS) == F_SEAL_GROW);
}

CASE(tcp_options_of_listeners) { /* of connections to come */
    int fd = socket(AF_INET, SOCK_STREAM, 0), numbers[] = {TCP_DEFER_ACCEPT, TCP_FASTOPEN, TCP_SAVE_SYN}, values[] = {7, 5, 1}, before[3], now;
    socklen_t size = sizeof now;
    for (int i = 0; i < 3; i++) {
        setsockopt(fd, IPPROTO_TCP, numbers[i], &values[i], sizeof values[i]); /* a kernel may not have it */
        before[i] = -1;
        getsockopt(fd, IPPROTO_TCP, numbers[i], &before[i], &size);
    }
    restored();
    for (int i = 0; i < 3; i++) {
        now = -1;
        getsockopt(fd, IPPROTO_TCP, numbers[i], &now, &size);
        CHECK(now == before[i]);
    }
}

static void tcp_ends(int ends[2]) {
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    CHECK(bind(listening, (void *)&at, size) == 0 && listen(listening, 1) == 0 && getsockname(listening, (void *)&at, &size) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ends[0], (void *)&at, size) == 0 && (ends[1] = accept(listening, 0, 0)) >= 0 && close(listening) == 0);
}
static int peeks_at_offsets(int fd) { int offset = -1; return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0; } /* Linux 6.9 */
static void check_urgent(const char *before, const char *after) {
    int ends[2];
    char text[20], urgent = 0;
    tcp_ends(ends);
    CHECK(!*before || send(ends[0], before, strlen(before), 0) == (ssize_t)strlen(before));
    CHECK(send(ends[0], "!", 1, MSG_OOB) == 1 && (!*after || send(ends[0], after, strlen(after), 0) == (ssize_t)strlen(after)));
    int left = 1; /* until all has arrived */
    while (ioctl(ends[0], TIOCOUTQ, &left) == 0 && left) usleep(500);
    if (!peeks_at_offsets(ends[1])) { restored(); return; }
    restored();
    CHECK(recv(ends[1], &urgent, 1, MSG_OOB) == 1 && urgent == '!');
    for (const char *part = before; ; part = after) {
        if (*part) CHECK(recv(ends[1], text, sizeof text, 0) == (ssize_t)strlen(part) && !memcmp(text, part, strlen(part)));
        if (part == after) break;
    }
    CHECK(recv(ends[1], text, sizeof text, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}
CASE(tcp_urgent) { check_urgent("ab", "cd"); }
CASE(tcp_urgent_first) { check_urgent("", "cd"); }
CASE(tcp_urgent_last) { check_urgent("!", ""); }
CASE(tcp_urgent_inline) {
    int ends[2], on = 1, mark = -1, at = 0;
    char text[6] = "";
    tcp_ends(ends);
    CHECK(setsockopt(ends[1], SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
    CHECK(send(ends[0], "ab", 2, 0) == 2 && send(ends[0], "!", 1, MSG_OOB) == 1 && send(ends[0], "cd", 2, 0) == 2);
    until_arrived(ends[1], 5);
    if (!peeks_at_offsets(ends[1])) { restored(); return; }
    restored();
    for (int i = 0; i < 5; i++) {
        CHECK(ioctl(ends[1], SIOCATMARK, &at) == 0);
        if (at && mark < 0) mark = i;
        CHECK(recv(ends[1], text + i, 1, 0) == 1);
    }
    CHECK(!strcmp(text, "ab!cd") && mark == 2);
}

CASE(epoll_busy_polling) {
    struct { uint32_t microseconds; uint16_t budget; uint8_t prefer, pad; } wanted = {77, 8, 1, 0}, found = {0};
    int fd = epoll_create1(0), has = ioctl(fd, 0x40088a01 /* EPIOCSPARAMS, Linux 6.9 */, &wanted) == 0;
    restored();
    CHECK(!has || (ioctl(fd, 0x80088a02, &found) == 0 && !memcmp(&wanted, &found, sizeof wanted)));
}

static void *connect_it(void *fd) {
    struct sockaddr_un a;
    un(&a, "full");
    return (void *)(long)connect((long)fd, (void *)&a, sizeof a);
}

CASE(unix_backlog_full) {
    struct sockaddr_un a;
    un(&a, "full");
    int l = socket(AF_UNIX, SOCK_STREAM, 0), first = socket(AF_UNIX, SOCK_STREAM, 0), second = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(l, (void *)&a, sizeof a) && !listen(l, 0) && !connect(first, (void *)&a, sizeof a));
    pthread_t thread;
    void *result;
    CHECK(!fcntl(second, F_SETFL, O_NONBLOCK) && connect(second, (void *)&a, sizeof a) == -1 && errno == EAGAIN && !fcntl(second, F_SETFL, 0));
    CHECK(!pthread_create(&thread, 0, connect_it, (void *)(long)second));
    restored();
    int one = accept(l, 0, 0), two = accept(l, 0, 0);
    CHECK(one >= 0 && two >= 0 && !pthread_join(thread, &result) && !result);
    char b[3];
    CHECK(write(first, "1", 1) == 1 && write(second, "2", 1) == 1 && read(one, b, 3) == 1 && b[0] == '1' && read(two, b, 3) == 1 && b[0] == '2');
}

CASE(unix_fds_of_many_kinds) {
    int s[2], p[2];
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s) && !pipe(p) && write(p[1], "pp", 2) == 2);
    int event = eventfd(7, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0), epoll = epoll_create1(0), memory = memfd_create("m", 0);
    int fds[] = {p[0], p[1], event, timer, epoll, memory, open(".", O_RDONLY | O_DIRECTORY), open("/dev/zero", O_RDONLY)}, got[8];
    struct epoll_event watch = {EPOLLIN, {.u64 = 9}};
    struct itimerspec time = {{0, 0}, {100, 0}};
    CHECK(write(memory, "mem", 3) == 3 && !timerfd_settime(timer, 0, &time, 0) && !epoll_ctl(epoll, EPOLL_CTL_ADD, event, &watch));
    char c[CMSG_SPACE(sizeof fds)] = {0}, b[3];
    struct iovec v = {"k", 1};
    struct msghdr m = {0, 0, &v, 1, c, sizeof c};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(h), fds, sizeof fds);
    CHECK(sendmsg(s[0], &m, 0) == 1);
    restored();
    v.iov_base = b;
    CHECK(recvmsg(s[1], &m, 0) == 1);
    h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_len == CMSG_LEN(sizeof fds));
    memcpy(got, CMSG_DATA(h), sizeof got);
    uint64_t value;
    CHECK(read(got[0], b, 3) == 2 && read(got[2], &value, 8) == 8 && value == 7);
    CHECK(!timerfd_gettime(got[3], &time) && time.it_value.tv_sec > 0 && !eventfd_write(event, 1));
    CHECK(epoll_wait(got[4], &watch, 1, 0) == 1 && watch.data.u64 == 9);
    CHECK(lseek(memory, 1, SEEK_SET) == 1 && lseek(got[5], 0, SEEK_CUR) == 1);
}
