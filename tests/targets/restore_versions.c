/* Files in the current folder, open in several ways: `file` (300,000 bytes) to be written, by two descriptors that share an offset and one that
 * has its own; `log` to be appended to; `map` (10,000 bytes) mapped to be written, without a descriptor, with pages that no one has synced;
 * `config`, which is there, to be read. With the line "same" it finds them as they were; with any other it does not look. Then it writes to each. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SIZE = 300000, MAPPED = 10000 };
static char pattern[SIZE], found[SIZE + 1];

int main(void) {
    char line[100] = "";
    for (int i = 0; i < SIZE; i++) pattern[i] = 'A' + i * 7 % 26;
    int file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0640);
    CHECK(write(file, pattern, SIZE) == SIZE && lseek(file, 100, SEEK_SET) == 100);
    int copy = dup(file), other = open("file", O_RDONLY);
    CHECK(lseek(other, 5, SEEK_SET) == 5);
    int log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(write(log, "before\n", 7) == 7);
    int map = open("map", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(ftruncate(map, MAPPED) == 0);
    char *memory = mmap(0, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
    CHECK(memory != MAP_FAILED && close(map) == 0);
    memset(memory + 5000, 'm', 200);
    int config = open("config", O_RDONLY);
    CHECK(config >= 0);
    printf("ready\n");
    fflush(stdout);
    CHECK(read(0, line, sizeof line) > 0);

    if (!strcmp(line, "same\n")) {
        struct stat facts, named;
        CHECK(fstat(file, &facts) == 0 && facts.st_size == SIZE);
        CHECK(stat("file", &named) == 0 ? named.st_ino == facts.st_ino : facts.st_nlink == 0);
        CHECK(pread(file, found, SIZE + 1, 0) == SIZE && !memcmp(found, pattern, SIZE));
        CHECK(read(copy, found, 10) == 10 && !memcmp(found, pattern + 100, 10) && lseek(file, 0, SEEK_CUR) == 110);
        CHECK(read(other, found, 10) == 10 && !memcmp(found, pattern + 5, 10));
        CHECK(fstat(log, &facts) == 0 && facts.st_size == 7);
        CHECK(memory[4999] == 0 && memory[5000] == 'm' && memory[5199] == 'm' && memory[5200] == 0);
        CHECK(pread(config, found, 100, 0) == 9 && !memcmp(found, "settings\n", 9));
    }
    CHECK(pwrite(file, "after", 5, SIZE) == 5 && write(log, "after\n", 6) == 6);
    memory[0] = 'a';
    return verified();
}
