/* TCP and UDP over the loopback, with data on the way. Receives everything afterwards. */
#include "state.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

int main(void)
{
    char buffer[1000];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, idle = 77;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 5) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, size) == 0);
    int server = accept(listener, NULL, NULL);
    CHECK(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    CHECK(setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle) == 0);
    CHECK(write(client, "over the wire", 13) == 13);
    int waiting = 0;
    while (waiting < 13)
        CHECK(ioctl(server, FIONREAD, &waiting) == 0);

    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    int udp6 = socket(AF_INET6, SOCK_DGRAM, 0);
    if (udp6 >= 0 && setsockopt(udp6, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0)
        (void)!bind(udp6, (struct sockaddr *)&six, sizeof six);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
    address.sin_port = 0;
    CHECK(bind(udp, (struct sockaddr *)&address, size) == 0 && getsockname(udp, (struct sockaddr *)&address, &size) == 0);
    CHECK(connect(sender, (struct sockaddr *)&address, size) == 0);
    CHECK(write(sender, "one", 3) == 3 && write(sender, "three", 5) == 5);
    struct sockaddr_in self;
    CHECK(getsockname(sender, (struct sockaddr *)&self, &size) == 0);

    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d %d %d", listener, client, server, udp, sender, ntohs(address.sin_port), ntohs(self.sin_port));
    ready(line);

    CHECK(read(udp, buffer, 100) == 3 && read(udp, buffer, 100) == 5);
    CHECK(read(server, buffer, 100) == 13 && memcmp(buffer, "over the wire", 13) == 0);
    CHECK(write(server, "and back", 8) == 8 && read(client, buffer, 100) == 8);
    size = sizeof on;
    CHECK(getsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, &size) == 0 && on == 1);
    close(client);
    CHECK(read(server, buffer, 100) == 0); /* no one else holds the other end */
    done();
}
