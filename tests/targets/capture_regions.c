// Regions that change in ways that the map does not show, or that files know nothing of: a letter a command.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 1 << 16, LARGE = 16 << 20, PAGE = 4096 };
static char *const shared_at = (char *)0x200000000000, *const file_at = (char *)0x210000000000;

int main(int count, char **words) {
    char word[8], content[SIZE];
    if (count != 2) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    // Unreadable pages around it, so that it is a region of its own.
    char *large = mmap(NULL, LARGE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + PAGE;
    mprotect(large, LARGE, PROT_READ | PROT_WRITE);
    memset(large, 1, LARGE);
    int memory = memfd_create("shared", 0);
    if (memory < 0 || ftruncate(memory, SIZE)) return 1;
    char *path = words[1];
    int fd = mkstemp(path);
    memset(content, 'a', SIZE);
    if (fd < 0 || write(fd, content, SIZE) != SIZE) return 1;
    char *file = mmap(file_at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0), *shared = NULL;
    close(fd);
    unlink(path);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", memory);
    int reader = open(link, O_RDONLY);
    char *seen = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, reader, 0); // never writable, but what it shows is written
    if (seen == MAP_FAILED) return 1;
    char *written = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    strcat(strcpy(content, path), ".kept");
    int kept = open(content, O_RDWR | O_CREAT, 0600);
    memset(content, 'a', SIZE);
    if (kept < 0 || pwrite(kept, content, SIZE, 0) != SIZE) return 1;
    char *private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, kept, 0);
    puts("ready");
    for (int round = 2; scanf("%7s", word) == 1; round++) {
        switch (word[0]) {
        case 'w': madvise(large, LARGE, MADV_WIPEONFORK); break;
        case 'k': madvise(large, LARGE, MADV_KEEPONFORK); break;
        case 'f': memset(large, round, LARGE); break;
        case 'n': // shared memory elsewhere, of other content, that cannot be read
            if (shared) munmap(shared, SIZE);
            shared = mmap(shared_at + (long)round * LARGE, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0);
            memset(shared, round, SIZE);
            mprotect(shared, SIZE, PROT_NONE);
            break;
        case 'r': memset(written, round % 3, SIZE / 2); break;
        case 's': mprotect(file, SIZE / 2, PROT_READ); break; // two regions of one
        case 'm': file = mremap(file, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, file_at + (long)round * LARGE); break;
        case 'p': // the file is written, not through the mapping
            memset(content, 'a' + round, SIZE);
            if (pwrite(kept, content, SIZE, 0) != SIZE) return 1;
            break;
        case 'q': // a page of its own, that is like the file
            memset(private + PAGE, 0, PAGE);
            if (pread(kept, private + PAGE, PAGE, PAGE) != PAGE) return 1;
            break;
        case 'z': madvise(private, SIZE, MADV_DONTNEED); break;
        case 'u': munmap(file, SIZE); break;
        case 't': file[SIZE - PAGE] = (char)round; break;
        }
        puts("done");
    }
    return 0;
}
