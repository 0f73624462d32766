/* regions N: N regions more than a program has; memory BYTES: that much memory, written to; tree N: N children. Then waits for a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    size_t count = strtoul(argv[2], 0, 0);
    char line[100];
    if (!strcmp(argv[1], "regions")) {
        for (size_t i = 0; i < count; i++) {
            /* Protection that alternates keeps neighbours apart. */
            char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            page[0] = i;
            mprotect(page, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
        }
    } else if (!strcmp(argv[1], "memory")) {
        /* Numbers that count up, text and zeros: what compresses as a program's data does. */
        unsigned *words = mmap(0, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        unsigned state = 1;
        for (size_t i = 0; i < count / 4096; i++) {
            unsigned *page = words + i * 1024;
            for (int j = 0; j < 512; j++) page[j] = i + j;
            for (int j = 512; j < 640; j++) page[j] = state = state * 1664525 + 1013904223;
        }
    } else {
        for (size_t i = 0; i < count; i++)
            if (fork() == 0)
                for (;;) pause();
    }
    printf("ready\n");
    fflush(stdout);
    return read(0, line, sizeof line) > 0 ? 0 : 1;
}
