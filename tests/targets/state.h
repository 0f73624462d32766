/* What the state_*.c programs share: say "ready", wait for a line, and check what must still be so. */
#ifndef STATE_H
#define STATE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* End with a message if a condition does not hold. */
#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            printf("%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno)); \
            fflush(stdout);                                                     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

/* Say what Python shall know, in one line, and wait until it says to go on. */
static inline void ready(const char *line)
{
    char byte;
    printf("%s\n", line);
    fflush(stdout);
    while (read(0, &byte, 1) < 0 && errno == EINTR)
        ;
}

static inline void done(void)
{
    printf("ok\n");
    fflush(stdout);
    exit(0);
}
#endif
