/* Programs of many cases, each of which sets something up, waits to be captured, killed and restored, and verifies it:

   PROGRAM           lists the names of its cases
   PROGRAM NAME      runs one: prints "ready", reads a line, prints "verified", and ends with status 42 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>

#define CHECK(x) do { if (!(x)) { printf("wrong, line %d: %s (%s)\n", __LINE__, #x, strerror(errno)); fflush(stdout); _exit(1); } } while (0)
static struct { const char *name; void (*run)(void); } cases[400];
static int case_count;
static void add_case(const char *name, void (*run)(void)) { cases[case_count].name = name; cases[case_count++].run = run; }
#define CASE(n) static void n(void); __attribute__((constructor)) static void reg_##n(void) { add_case(#n, n); } static void n(void)

static inline void restored(void) {
    char line[100];
    printf("ready\n");
    fflush(stdout);
    CHECK(read(0, line, sizeof line) > 0);
}
static inline int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }

/* until a process or thread waits in a system call */
static inline void until_in_call(pid_t tid, long number) {
    char path[60], text[200] = "";
    snprintf(path, sizeof path, "/proc/%d/syscall", tid);
    while (strtol(text, 0, 10) != number || text[0] == 'r') { /* "running" */
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) { usleep(50000); return; } /* a kernel that does not tell */
        ssize_t size = read(fd, text, sizeof text - 1);
        text[size > 0 ? size : 0] = 0;
        close(fd);
        if (size < 0 && errno != EAGAIN) { usleep(50000); return; }
        usleep(500);
    }
}
/* until a child has ended; it is not waited for */
static inline void until_ended(pid_t pid) { siginfo_t info; CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0); }
/* until so many bytes can be read */
static inline void until_arrived(int fd, int bytes) { int count = 0; while (ioctl(fd, FIONREAD, &count) == 0 && count < bytes) usleep(500); }
/* until the other side has ended its part of a connection, and knows that this one knows */
static inline void until_shut(int fd) { struct pollfd end = {fd, POLLRDHUP, 0}; CHECK(poll(&end, 1, -1) == 1); usleep(10000); }

/* whether the region at an address has a flag in VmFlags of smaps */
static inline int has_flag(void *at, const char *flag) {
    FILE *f = fopen("/proc/self/smaps", "r"); char line[600]; int here = 0; unsigned long s, e;
    CHECK(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &s, &e) == 2 && strchr(line, '-') < line + 17) here = (unsigned long)at >= s && (unsigned long)at < e;
        else if (here && !strncmp(line, "VmFlags:", 8)) { char find[8]; snprintf(find, sizeof find, " %s", flag); fclose(f); return strstr(line, find) != 0; }
    }
    fclose(f);
    return -1;
}
static inline int maps_line(void *at, char *line, int size) {
    FILE *f = fopen("/proc/self/maps", "r"); unsigned long s, e;
    while (fgets(line, size, f)) if (sscanf(line, "%lx-%lx ", &s, &e) == 2 && (unsigned long)at >= s && (unsigned long)at < e) { fclose(f); return 1; }
    fclose(f);
    return 0;
}
static inline char perm(void *at, int i) { char line[600]; if (!maps_line(at, line, sizeof line)) return 0; return strchr(line, ' ')[1 + i]; }
static inline int status_line(const char *key, char *value, int size) {
    FILE *f = fopen("/proc/self/status", "r"); char line[600]; int n = strlen(key);
    while (fgets(line, sizeof line, f)) if (!strncmp(line, key, n) && line[n] == ':') { snprintf(value, size, "%s", line + n + 1); fclose(f); return 1; }
    fclose(f); return 0;
}
static void *map(size_t n, int prot, int flags) { void *p = mmap(0, n, prot, flags, -1, 0); CHECK(p != MAP_FAILED); return p; }
#define RW (PROT_READ|PROT_WRITE)
#define ANON (MAP_PRIVATE|MAP_ANONYMOUS)

static char out_buffer[4096];
int main(int argc, char **argv) {
    setvbuf(stdout, out_buffer, _IOFBF, sizeof out_buffer);
    if (argc < 2) { for (int i = 0; i < case_count; i++) puts(cases[i].name); return 0; }
    for (int i = 0; i < case_count; i++) if (!strcmp(cases[i].name, argv[1])) { cases[i].run(); printf("verified\n"); fflush(stdout); return 42; }
    return 2;
}
