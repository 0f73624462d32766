/* Open files: offsets, flags, dup, close-on-exec, appending, deleted files, memory files, directories, devices, pipes with content, locks,
 * umask, current directory, limits. Works in the current directory. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

int main(void) {
    char buffer[100], cwd[1000], now[1000];
    struct stat facts;
    struct rlimit limit = {50, 100};
    CHECK(mkdir("folder", 0755) == 0 && chdir("folder") == 0 && getcwd(cwd, sizeof cwd));
    int file = open("file", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(write(file, "0123456789", 10) == 10 && lseek(file, 3, SEEK_SET) == 3);
    int copy = dup2(file, 20), other = open("file", O_RDONLY | O_CLOEXEC);
    CHECK(lseek(other, 5, SEEK_SET) == 5);
    int append = open("file", O_WRONLY | O_APPEND | O_NONBLOCK);
    int gone = open("gone", O_RDWR | O_CREAT, 0600);
    CHECK(write(gone, "deleted", 7) == 7 && unlink("gone") == 0);
    int memory = memfd_create("notes", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(ftruncate(memory, 8192) == 0 && pwrite(memory, "memory", 6, 4096) == 6 && fcntl(memory, F_ADD_SEALS, F_SEAL_GROW) == 0);
    char *mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    char *written = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    char *private = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    CHECK(mapped != MAP_FAILED && written != MAP_FAILED && private != MAP_FAILED);
    strcpy(mapped, "through the mapping");
    private[1] = 'x';
    int directory = open(".", O_RDONLY | O_DIRECTORY), path = open("file", O_PATH), null = open("/dev/null", O_RDWR);
    int ends[2], packets[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "waiting", 7) == 7 && fcntl(ends[1], F_SETPIPE_SZ, 1 << 17) == 1 << 17);
    CHECK(pipe2(packets, O_DIRECT) == 0);
    CHECK(flock(other, LOCK_EX) == 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3}, found;
    CHECK(fcntl(file, F_SETLK, &lock) == 0);
    umask(027);
    setrlimit(RLIMIT_NOFILE, &limit);

    wait_to_be_restored();
    CHECK(getcwd(now, sizeof now) && !strcmp(cwd, now));
    CHECK(read(copy, buffer, 2) == 2 && !memcmp(buffer, "34", 2) && lseek(file, 0, SEEK_CUR) == 5);
    CHECK(read(other, buffer, 2) == 2 && !memcmp(buffer, "56", 2));
    CHECK(fcntl(other, F_GETFD) == FD_CLOEXEC && fcntl(file, F_GETFD) == 0);
    CHECK((fcntl(append, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE)) == (O_APPEND | O_NONBLOCK | O_WRONLY));
    CHECK(write(append, "A", 1) == 1 && fstat(file, &facts) == 0 && facts.st_size == 11);
    CHECK(pread(gone, buffer, 100, 0) == 7 && !memcmp(buffer, "deleted", 7) && lseek(gone, 0, SEEK_CUR) == 7);
    CHECK(fstat(gone, &facts) == 0 && facts.st_nlink == 0);
    CHECK(fcntl(memory, F_GET_SEALS) == F_SEAL_GROW && fcntl(memory, F_GETFD) == FD_CLOEXEC);
    CHECK(pread(memory, buffer, 6, 4096) == 6 && !memcmp(buffer, "memory", 6) && !strcmp(mapped, "through the mapping"));
    mapped[0] = 'T';
    CHECK(pread(memory, buffer, 1, 0) == 1 && buffer[0] == 'T');
    written[0] = 'W';
    CHECK(pread(file, buffer, 1, 0) == 1 && buffer[0] == 'W' && private[0] == '0' && private[1] == 'x');
    CHECK(openat(directory, "file", O_RDONLY) >= 0 && fstat(path, &facts) == 0 && S_ISREG(facts.st_mode));
    CHECK(read(null, buffer, 1) == 0 && write(null, "x", 1) == 1);
    CHECK(fcntl(ends[1], F_GETPIPE_SZ) == 1 << 17 && write(ends[1], "!", 1) == 1);
    CHECK(read(ends[0], buffer, 100) == 8 && !memcmp(buffer, "waiting!", 8));
    CHECK(write(packets[1], "ab", 2) == 2 && write(packets[1], "cde", 3) == 3);
    CHECK(read(packets[0], buffer, 100) == 2 && read(packets[0], buffer, 100) == 3 && !memcmp(buffer, "cde", 3));
    int again = open("file", O_RDWR);
    CHECK(flock(again, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    if (fork() == 0) {
        lock.l_type = F_WRLCK;
        lock.l_start = 0;
        lock.l_len = 0;
        _exit(fcntl(again, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_start == 2 && lock.l_len == 3 ? 0 : 1);
    }
    (void)found;
    CHECK(umask(0) == 027);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 50 && limit.rlim_max == 100);
    return verified();
}
