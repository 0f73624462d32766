/* Pipes with bytes in them: argv[1] is an empty directory, for a FIFO. Reads everything afterwards. */
#include "state.h"

int main(int argc, char **argv)
{
    (void)argc;
    char buffer[100000], name[4096];
    int bytes[2], packets[2], empty[2];
    CHECK(pipe(bytes) == 0 && pipe2(packets, O_DIRECT) == 0 && pipe(empty) == 0);
    CHECK(fcntl(bytes[1], F_SETPIPE_SZ, 262144) >= 262144);
    memset(buffer, 'x', sizeof buffer);
    CHECK(write(bytes[1], buffer, sizeof buffer) == sizeof buffer && write(bytes[1], "end", 3) == 3);
    CHECK(write(packets[1], "one", 3) == 3 && write(packets[1], "four", 4) == 4);
    snprintf(name, sizeof name, "%s/fifo", argv[1]);
    CHECK(mkfifo(name, 0600) == 0);
    int fifo = open(name, O_RDWR);
    CHECK(write(fifo, "through a name", 14) == 14);

    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d", bytes[0], bytes[1], packets[0], empty[0], fifo);
    ready(line);

    size_t total = 0;
    while (total < 100003) {
        ssize_t size = read(bytes[0], buffer, sizeof buffer);
        CHECK(size > 0);
        total += size;
    }
    CHECK(total == 100003);
    CHECK(read(packets[0], buffer, 100) == 3 && read(packets[0], buffer, 100) == 4);
    CHECK(read(fifo, buffer, 100) == 14 && memcmp(buffer, "through a name", 14) == 0);
    fcntl(empty[0], F_SETFL, O_NONBLOCK);
    CHECK(read(empty[0], buffer, 1) == -1 && errno == EAGAIN);
    close(empty[1]);
    CHECK(read(empty[0], buffer, 1) == 0); /* no one else holds the writing end */
    done();
}
