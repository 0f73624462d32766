/* A file mapped to be read and, shared, to be written. Prints the address of the latter, waits for a line, makes its first page zeros, says so,
 * and waits for the end. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char line[100];
    int file = argc > 1 ? open(argv[1], O_RDWR) : -1;
    char *reading = mmap(0, 8192, PROT_READ, MAP_PRIVATE, file, 4096);
    char *writing = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || reading == MAP_FAILED || writing == MAP_FAILED) return 1;
    writing[1] = 'b';
    printf("%p %d\n", (void *)writing, reading[0]);
    fflush(stdout);
    if (read(0, line, sizeof line) < 0) return 1;
    memset(writing, 0, 4096);
    printf("zeros\n");
    fflush(stdout);
    return read(0, line, sizeof line) < 0;
}
