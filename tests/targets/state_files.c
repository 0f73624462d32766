/* Files of every kind: argv[1] is an empty directory. After the line it checks that offsets and locks are as they were. */
#include "state.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    (void)argc;
    CHECK(chdir(argv[1]) == 0);
    int plain = open("plain file", O_RDWR | O_CREAT | O_APPEND, 0640);
    CHECK(plain >= 0 && write(plain, "0123456789", 10) == 10 && lseek(plain, 4, SEEK_SET) == 4);
    int copy = dup(plain);
    int other = fcntl(plain, F_DUPFD_CLOEXEC, 100);
    int apart = open("plain file", O_RDWR | O_APPEND);
    CHECK(lseek(apart, 4, SEEK_SET) == 4);
    int gone = open("gone", O_WRONLY | O_CREAT, 0600);
    CHECK(write(gone, "content of the deleted file", 27) == 27 && unlink("gone") == 0);
    int odd = open("odd (deleted)", O_RDONLY | O_CREAT, 0600);
    int memory = memfd_create("a memory file", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(write(memory, "in memory", 9) == 9 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    int path = open("plain file", O_PATH);
    int null = open("/dev/null", O_RDWR);
    CHECK(flock(plain, LOCK_SH) == 0);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    CHECK(fcntl(gone, F_SETLK, &range) == 0);
    range.l_len = 0;
    CHECK(fcntl(apart, F_OFD_SETLK, &range) == 0);

    char line[200];
    snprintf(line, sizeof line, "%d %d %d %d %d %d %d %d %d %d", plain, copy, other, apart, gone, odd, memory, directory, path, null);
    ready(line);

    CHECK(lseek(plain, 0, SEEK_CUR) == 4 && lseek(apart, 0, SEEK_CUR) == 4);
    CHECK(lseek(plain, 6, SEEK_SET) == 6 && lseek(copy, 0, SEEK_CUR) == 6);
    CHECK(dup(0) == null + 1); /* no descriptor was left behind */
    done();
}
