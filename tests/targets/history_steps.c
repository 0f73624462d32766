// Does one thing to its own memory at each word on stdin, and says "done".
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

volatile int counter = 100;
static char *area, *other;

static void *sleeper(void *unused)
{
    pause();
    return unused;
}

int main(void)
{
    char word[32];
    const size_t size = 8 << 20;
    area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(area, 'a', size);
    printf("%p %p\n", (void *)area, (void *)&counter);
    fflush(stdout);
    while (scanf("%31s", word) == 1) {
        if (!strcmp(word, "count"))
            counter++;
        else if (!strcmp(word, "write"))
            memcpy(area + 5 * 4096 + 4094, "four", 4); // over the border of two pages
        else if (!strcmp(word, "protect"))
            mprotect(area + (2 << 20), 4096, PROT_READ);
        else if (!strcmp(word, "map"))
            other = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        else if (!strcmp(word, "unmap"))
            munmap(other, 64 << 10);
        else if (!strcmp(word, "thread")) {
            pthread_t thread;
            pthread_create(&thread, NULL, sleeper, NULL);
        } else if (!strcmp(word, "grow"))
            if (sbrk(1 << 20) == (void *)-1)
                return 1;
        puts("done");
        fflush(stdout);
    }
    return 0;
}
