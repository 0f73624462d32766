/* Writes one word of each of the first N pages of 8 MiB for each line "N" that it reads, and prints how many faults that took. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { PAGES = 2048, PAGE = 4096 };

int main(void)
{
    unsigned char *memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE) != 0)
        return 1;
    char line[64];
    unsigned long long value = 0;
    struct rusage before, after;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        long pages = strtol(line, NULL, 10);
        value++;
        getrusage(RUSAGE_SELF, &before);
        for (long page = 0; page < pages; page++)
            *(unsigned long long *)(memory + page * PAGE) = value;
        getrusage(RUSAGE_SELF, &after);
        printf("%ld\n", after.ru_minflt - before.ru_minflt);
        fflush(stdout);
    }
    return 0;
}
