/* Data, heap, stack, registers and static memory must be the same after a restore. Prints "ready", waits for a line, verifies, and says
 * "verified N" or what is wrong. A loop in registers goes on all the while when started with "spin". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t data[100000];
static int initialised = 4711;
static const char constant[] = "constant";

static uint32_t next(uint32_t *state) { return *state = *state * 1664525 + 1013904223; }

static void fill(uint8_t *at, size_t n, uint32_t seed) { for (size_t i = 0; i < n; i++) at[i] = next(&seed) >> 24; }

static int same(const uint8_t *at, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) if (at[i] != next(&seed) >> 24) return 0;
    return 1;
}

static int deep(int n) {
    volatile char room[4096];
    memset((char *)room, n, sizeof room);
    int below = n ? deep(n - 1) : 0;
    for (size_t i = 0; i < sizeof room; i++) if (room[i] != (char)n) return -100000;
    return below + 1;
}

#define CHECK(x) do { if (!(x)) { printf("wrong: %s\n", #x); fflush(stdout); return 1; } } while (0)

int main(int argc, char **argv) {
    uint8_t *heap = malloc(300000), *small = malloc(100);
    uint8_t *map = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *read_only = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *none = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t local[5000];
    pid_t pid = getpid();
    void *end = sbrk(0);
    fill(data, sizeof data, 1);
    fill(heap, 300000, 2);
    fill(small, 100, 3);
    fill(map + 4096, 1 << 19, 4);
    fill(read_only, 8192, 5);
    fill(none, 8192, 6);
    fill(local, sizeof local, 7);
    mprotect(read_only, 8192, PROT_READ);
    mprotect(none, 8192, PROT_NONE);
    initialised = 815;
    char line[100];
    printf("ready\n");
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "spin"))
        for (volatile uint64_t i = 0; access(argv[2], F_OK); i++);
    else if (!fgets(line, sizeof line, stdin)) return 2;
    CHECK(same(data, sizeof data, 1));
    CHECK(same(heap, 300000, 2));
    CHECK(same(small, 100, 3));
    CHECK(same(map + 4096, 1 << 19, 4));
    CHECK(map[0] == 0 && map[(1 << 20) - 1] == 0);
    CHECK(same(read_only, 8192, 5));
    CHECK(mprotect(none, 8192, PROT_READ) == 0 && same(none, 8192, 6));
    CHECK(same(local, sizeof local, 7));
    CHECK(initialised == 815 && !strcmp(constant, "constant"));
    CHECK(getpid() == pid);
    CHECK(sbrk(0) == end && sbrk(8192) == end && ((char *)end)[8191] == 0);
    CHECK(deep(500) == 501);
    free(heap);
    CHECK(malloc(1 << 20));
    printf("verified\n");
    fflush(stdout);
    return 42;
}
