// A large region that is dropped, or mapped anew at its place, in part: a letter a command.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 8192 };
static unsigned char *base;
static unsigned char round_;

static void fill(unsigned first, unsigned step) {
    round_++;
    for (unsigned page = first; page < PAGES; page += step) memset(base + (size_t)page * PAGE, round_ + page % 199, PAGE);
}

static void map(void) {
    base = mmap(base, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (base ? MAP_FIXED : 0), -1, 0);
    madvise(base, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
}

int main(void) {
    char word[8];
    setvbuf(stdout, NULL, _IONBF, 0);
    map();
    puts("ready");
    while (scanf("%7s", word) == 1) {
        switch (word[0]) {
        case 'm': map(); break;                                            // all of it anew, empty
        case 'f': fill(0, 1); break;                                       // every page
        case 'o': fill(1, 2); break;                                       // every other page
        case 'd': madvise(base, (size_t)PAGES / 2 * PAGE, MADV_DONTNEED); break; // half of it empty
        case 'x':                                                          // 64 pages of each 128 empty
            for (unsigned page = 0; page < PAGES; page += 128) madvise(base + (size_t)page * PAGE, 64 * PAGE, MADV_DONTNEED);
            break;
        }
        puts("done");
    }
    return 0;
}
