/* Writes to private pages of its own file, which is large, and drops them, over and over: what is read there next is the file's. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 1024 };

const char large[PAGE * (PAGES + 16)] = {1};

int main(void)
{
    int file = open("/proc/self/exe", O_RDONLY);
    unsigned char *pages = mmap(NULL, PAGE * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (pages == MAP_FAILED)
        return 1;
    printf("ready%s\n", large[1] ? "?" : "");
    fflush(stdout);
    for (unsigned char value = 1;; value++) {
        for (int page = 0; page < PAGES; page++)
            *(volatile unsigned char *)(pages + page * PAGE + 100) = value;
        if (madvise(pages, PAGE * PAGES, MADV_DONTNEED) != 0)
            return 1;
    }
}
