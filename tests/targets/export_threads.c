// Threads that wait in nested calls, and one region of each kind that an exporter may meet.
// Arguments: the number of extra threads; MiB of a mapping with one word in it; a file to map beyond its end.
// Prints the addresses of the word, and of a page that mprotect closed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

extern long library_wait(int fd, long depth);

enum colour { RED, GREEN = 5 };
struct node { int value; struct node *next; };
struct account {
    char name[16];
    double balance;
    enum colour colour;
    unsigned flags : 3, mode : 5;
    struct node *list;
    long history[4];
};

struct node second = { 22, NULL }, first = { 11, &second };
struct account account = { "alice", 12.5, GREEN, 3, 17, &first, { 1, 2, 3, 5 } };
int answer = 42;
static volatile int hidden = 4711;
const char *greeting = "hello, core";
volatile double vectors[4] = { 1.5, 2.5, 3.5, 4.5 };
static int pipes[2];

__attribute__((noinline)) long wait_below(long depth)
{
    if (depth > 0)
        return wait_below(depth - 1) + depth;
    return library_wait(pipes[0], depth + hidden);
}

static void *worker(void *number)
{
    char name[16];
    snprintf(name, sizeof name, "worker-%ld", (long)number);
    pthread_setname_np(pthread_self(), name);
    return (void *)wait_below(3 + (long)number);
}

static char *map(size_t size, int protection, int flags, int fd)
{
    char *address = mmap(NULL, size, protection, flags, fd, 0);
    if (address == MAP_FAILED)
        exit(1);
    return address;
}

int main(int argc, char **argv)
{
    long threads = atol(argv[1]);
    const size_t mib = 1 << 20;

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); // any debugger may attach, whatever Yama says
    char *data = map(9 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (size_t page = 0; page < 9 * mib; page += 3 * 4096)
        memset(data + page, (int)(page >> 12) | 1, 4096);
    char *guarded = map(3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    strcpy(guarded + 4096, "hidden behind PROT_NONE");
    mprotect(guarded + 4096, 4096, PROT_NONE);
    map(64 * mib, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    size_t wide = atol(argv[2]) * mib;
    char *sparse = map(wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    strcpy(sparse + wide / 4 * 3, "a word in the desert");
    int memfd = memfd_create("shared words", 0);
    ftruncate(memfd, 64 << 10);
    strcpy(map(64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED, memfd) + 777, "shared");
    if (argc > 3) {
        int fd = open(argv[3], O_RDWR);
        char *beyond = map(8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
        beyond[4096] = 'W';
    }

    pipe(pipes);
    for (long number = 0; number < threads; number++) {
        pthread_t thread;
        pthread_create(&thread, NULL, worker, (void *)number);
    }
    printf("%p %p\n", sparse + wide / 4 * 3, guarded + 4096);
    fflush(stdout);
    __asm__ volatile("movups %0, %%xmm9" : : "m"(vectors) : "xmm9");
    return (int)wait_below(1);
}
