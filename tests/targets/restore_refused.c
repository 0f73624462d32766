/* What cannot be restored, a case a name: see restore_cases.h. Prints another word than "ready" where the kernel has no such thing. */
#include "restore_cases.h"
#include <sys/mount.h>

static void or_give_up(int possible) {
    if (possible) return;
    printf("impossible\n");
    fflush(stdout);
    pause();
}

static void pass(int socket, int *fds, int count) {
    char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct iovec vector = {"m", 1};
    struct msghdr message = {0, 0, &vector, 1, control, CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    CHECK(sendmsg(socket, &message, 0) == 1);
}

static int listening(struct sockaddr_un *address, socklen_t *length) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    address->sun_family = AF_UNIX;
    *length = offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(address->sun_path + 1, "refused-%d", getpid());
    CHECK(!bind(fd, (struct sockaddr *)address, *length) && !listen(fd, 5));
    return fd;
}

CASE(refused_secret_memory) {
    int fd = syscall(447, 0);
    or_give_up(fd >= 0 && !ftruncate(fd, 4096));
    char *page = mmap(0, 4096, RW, MAP_SHARED, fd, 0);
    or_give_up(page != MAP_FAILED);
    page[0] = 1;
    restored();
}

CASE(refused_passed_pipe) {
    int pair[2], ends[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair) && !pipe(ends));
    pass(pair[0], ends, 2);
    close(ends[0]);
    close(ends[1]);
    restored();
}

CASE(refused_backlog_with_data) {
    struct sockaddr_un address = {0};
    socklen_t length;
    listening(&address, &length);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(client, (struct sockaddr *)&address, length) && write(client, "data", 4) == 4);
    restored();
}

CASE(refused_backlog_of_the_gone) {
    struct sockaddr_un address = {0};
    socklen_t length;
    listening(&address, &length);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(client, (struct sockaddr *)&address, length));
    close(client);
    restored();
}

CASE(refused_namespace) {
    CHECK(open("/proc/self/ns/uts", O_RDONLY) >= 0);
    restored();
}

CASE(refused_userfaultfd) {
    or_give_up(syscall(SYS_userfaultfd, O_NONBLOCK | 1) >= 0);
    restored();
}

CASE(refused_network_namespace) {
    or_give_up(!unshare(CLONE_NEWNET));
    restored();
}

CASE(refused_mounts) {
    or_give_up(!unshare(CLONE_NEWNS) && !mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) && !mount("none", "/mnt", "tmpfs", 0, 0));
    restored();
}

CASE(refused_children_elsewhere) {
    or_give_up(!unshare(CLONE_NEWPID));
    restored();
}

static volatile int apart;
static void *with_own_files(void *unused) {
    apart = unshare(CLONE_FILES) ? 2 : 1;
    for (;;) pause();
    return unused;
}

CASE(refused_thread_with_own_files) {
    pthread_t thread;
    CHECK(!pthread_create(&thread, 0, with_own_files, 0));
    while (!apart) usleep(1000);
    or_give_up(apart == 1);
    restored();
}

CASE(refused_keyring) {
    or_give_up(syscall(SYS_add_key, "user", "vcsimg", "secret", 6, -2) > 0);
    restored();
}

CASE(refused_segments) {
    struct { unsigned entry, base, limit, bits; } segment = {3, 0x1000, 0xfffff, 0x51};
    or_give_up(!syscall(SYS_modify_ldt, 1, &segment, sizeof segment));
    restored();
}

CASE(refused_confined) {
    uint64_t handled = 2; /* LANDLOCK_ACCESS_FS_WRITE_FILE */
    int rules = syscall(444, &handled, sizeof handled, 0);
    or_give_up(rules >= 0 && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(446, rules, 0));
    close(rules);
    restored();
}

CASE(refused_long_path) {
    char name[201];
    memset(name, 'd', 200);
    name[200] = 0;
    for (int i = 0; i < 25; i++) CHECK(!mkdir(name, 0700) && !chdir(name));
    CHECK(open("file", O_RDWR | O_CREAT, 0600) >= 0);
    restored();
}
