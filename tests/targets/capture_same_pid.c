/* Keeps one child, with 1,024 pages at ADDRESS, of which it writes every N-th. For each line "N" on stdin it ends its child, and makes another one
   with the same pid (clone3(2), set_tid, which takes CAP_CHECKPOINT_RESTORE). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDRESS ((char *) 0x10000000)
#define PAGES 1024

static void child(int step)
{
    char *pages = mmap(ADDRESS, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (pages != ADDRESS) _exit(1);
    for (int page = 0; page < PAGES; page += step) memset(pages + page * 4096, 1 + page % 200, 4096);
    printf("child %d\n", getpid());
    fflush(stdout);
    for (;;) pause();
}

int main(void)
{
    pid_t pid = 0;
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int step = atoi(line);
        pid_t wanted = pid;
        if (pid) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
        struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = pid ? (uintptr_t) &wanted : 0, .set_tid_size = pid ? 1 : 0};
        long made = syscall(SYS_clone3, &args, sizeof args);
        if (made == 0) child(step);
        if (made < 0) {
            printf("refused %s\n", strerror(errno));
            fflush(stdout);
            return 1;
        }
        pid = made;
    }
    if (pid) kill(pid, SIGKILL);
    return 0;
}
