/* Mappings of every kind. A case a name; see restore_cases.h. */
#include "restore_cases.h"
#include <sys/utsname.h>
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

CASE(mem_dontfork) {
    char *p = map(8192, RW, ANON);
    memset(p, 7, 8192);
    madvise(p, 8192, MADV_DONTFORK);
    restored();
    CHECK(p[5000] == 7 && has_flag(p, "dc") == 1);
}

CASE(mem_wipeonfork) {
    char *p = map(8192, RW, ANON);
    memset(p, 7, 8192);
    madvise(p, 8192, MADV_WIPEONFORK);
    restored();
    CHECK(p[5000] == 7 && has_flag(p, "wf") == 1);
    pid_t c = fork();
    if (!c) _exit(p[0] == 0 ? 0 : 1);
    int st;
    waitpid(c, &st, 0);
    CHECK(st == 0);
}

CASE(mem_dontdump) {
    char *p = map(8192, RW, ANON);
    memset(p, 7, 8192);
    madvise(p, 4096, MADV_DONTDUMP);
    restored();
    CHECK(p[5000] == 7 && has_flag(p, "dd") == 1 && has_flag(p + 4096, "dd") == 0);
}

CASE(mem_mergeable) {
    char *p = map(65536, RW, ANON);
    memset(p, 7, 65536);
    int r = madvise(p, 65536, MADV_MERGEABLE);
    restored();
    CHECK(p[5000] == 7);
    if (!r) CHECK(has_flag(p, "mg") == 1);
}

CASE(mem_hugepage) {
    char *p = map(8 << 20, RW, ANON);
    p = (char *)(((uintptr_t)p + (2 << 20) - 1) & ~((2ul << 20) - 1));
    int r = madvise(p, 4 << 20, MADV_HUGEPAGE);
    memset(p, 7, 4 << 20);
    restored();
    CHECK(p[5000] == 7 && p[(4 << 20) - 1] == 7);
    if (!r) CHECK(has_flag(p, "hg") == 1);
}

CASE(mem_random_sequential) {
    char *p = map(16384, RW, ANON);
    madvise(p, 8192, MADV_RANDOM);
    madvise(p + 8192, 8192, MADV_SEQUENTIAL);
    restored();
    CHECK(has_flag(p, "rr") == 1 && has_flag(p + 8192, "sr") == 1);
}

CASE(mem_mlock) {
    char *p = map(8192, RW, ANON);
    CHECK(mlock(p, 8192) == 0);
    memset(p, 3, 8192);
    restored();
    CHECK(has_flag(p, "lo") == 1 && p[8191] == 3);
    unsigned char v[2];
    CHECK(mincore(p, 8192, v) == 0 && (v[0] & 1));
    char t[100];
    CHECK(status_line("VmLck", t, 100) && atoi(t) >= 8);
}

CASE(mem_mlock_onfault) {
    char *p = map(8192, RW, ANON);
    CHECK(mlock2(p, 8192, MLOCK_ONFAULT) == 0);
    p[0] = 3;
    restored();
    CHECK(has_flag(p, "lo") == 1 && p[0] == 3);
    unsigned char v[2];
    CHECK(mincore(p, 8192, v) == 0 && !(v[1] & 1));
}

CASE(mem_mlockall_current) {
    char *p = map(8192, RW, ANON);
    p[0] = 3;
    if (mlockall(MCL_CURRENT)) {
        restored();
        return;
    }
    restored();
    CHECK(has_flag(p, "lo") == 1 && p[0] == 3);
    char *q = map(8192, RW, ANON);
    CHECK(has_flag(q, "lo") == 0);
}

CASE(mem_mlockall_future) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
        restored();
        return;
    }
    restored();
    char *q = map(8192, RW, ANON);
    CHECK(has_flag(q, "lo") == 1);
}

CASE(mem_anon_name) {
    char *p = map(8192, RW, ANON);
    p[0] = 4;
    int r = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 8192, "my buffer");
    restored();
    char l[600];
    CHECK(maps_line(p, l, 600) && (r || strstr(l, "[anon:my buffer]")));
    CHECK(p[0] == 4);
}

CASE(mem_anon_shmem_name) {
    char *p = mmap(0, 8192, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    p[0] = 4;
    int r = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 8192, "shared one");
    restored();
    char l[600];
    CHECK(maps_line(p, l, 600) && (r || strstr(l, "[anon_shmem:shared one]")));
    CHECK(p[0] == 4);
}

CASE(mem_growsdown) {
    char *p = map(1 << 20, PROT_NONE, ANON);
    munmap(p, 1 << 20);
    char *top = p + (1 << 20);
    char *s = mmap(top - 4096, 4096, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    CHECK(s != MAP_FAILED);
    s[0] = 1;
    restored();
    CHECK(has_flag(s, "gd") == 1);
    for (int i = 1; i < 20; i++) s[-4096 * i] = i;
    CHECK(s[0] == 1);
    CHECK(s[-4096] == 1);
}
static int deep(int n) {
    volatile char b[4096];
    b[0] = n;
    return n ? deep(n - 1) + b[0] : 0;
}

CASE(mem_stack_grows) {
    restored();
    struct rlimit r;
    getrlimit(RLIMIT_STACK, &r);
    deep(1000);
    char l[600];
    char x;
    CHECK(maps_line(&x, l, 600) && strstr(l, "[stack]"));
}

CASE(mem_brk) {
    char *a = sbrk(0);
    CHECK(sbrk(100000) == a);
    memset(a, 5, 100000);
    restored();
    CHECK((char *)sbrk(0) == a + 100000);
    CHECK(sbrk(50000) == a + 100000 && a[99999] == 5);
    a[149999] = 1;
    char l[600];
    CHECK(maps_line(a, l, 600) && strstr(l, "[heap]"));
}

CASE(mem_prot_none) {
    char *p = map(3 * 4096, RW, ANON);
    memset(p, 9, 3 * 4096);
    mprotect(p + 4096, 4096, PROT_NONE);
    restored();
    CHECK(perm(p + 4096, 0) == '-' && perm(p, 1) == 'w');
    mprotect(p + 4096, 4096, PROT_READ);
    CHECK(p[4096] == 9 && p[0] == 9 && p[8192] == 9);
}

CASE(mem_rwx) {
    unsigned char *p = map(4096, RW | PROT_EXEC, ANON);
    memcpy(p, "\xb8\x2a\0\0\0\xc3", 6);
    restored();
    CHECK(((int (*)(void))p)() == 42);
    p[1] = 7;
    CHECK(((int (*)(void))p)() == 7);
}

CASE(mem_shared_fork) {
    int *p = mmap(0, 8192, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    p[0] = 1;
    int ends[2];
    pipe(ends);
    pid_t c = fork();
    if (!c) {
        char b;
        close(ends[1]);
        read(ends[0], &b, 1);
        p[1] = p[0] + 1;
        _exit(5);
    }
    close(ends[0]);
    usleep(20000);
    restored();
    p[0] = 77;
    write(ends[1], "x", 1);
    int st;
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 5);
    CHECK(p[1] == 78);
}

CASE(mem_private_fork) {
    int *p = map(8192, RW, ANON);
    p[0] = 1;
    int ends[2];
    pipe(ends);
    pid_t c = fork();
    if (!c) {
        char b;
        p[0] = 3;
        close(ends[1]);
        read(ends[0], &b, 1);
        _exit(p[0]);
    }
    close(ends[0]);
    p[0] = 2;
    usleep(20000);
    restored();
    write(ends[1], "x", 1);
    int st;
    CHECK(waitpid(c, &st, 0) == c && WEXITSTATUS(st) == 3);
    CHECK(p[0] == 2);
}

CASE(mem_memfd_mapped) {
    int fd = memfd_create("thing", MFD_CLOEXEC);
    ftruncate(fd, 20000);
    char *p = mmap(0, 20000, RW, MAP_SHARED, fd, 0);
    strcpy(p + 5000, "hello");
    restored();
    CHECK(!strcmp(p + 5000, "hello"));
    strcpy(p + 100, "again");
    char b[6];
    CHECK(pread(fd, b, 6, 100) == 6 && !strcmp(b, "again"));
    pwrite(fd, "fd", 3, 7000);
    CHECK(!strcmp(p + 7000, "fd"));
    struct stat s;
    fstat(fd, &s);
    CHECK(s.st_size == 20000);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    char l[600];
    CHECK(maps_line(p, l, 600) && strstr(l, "/memfd:thing (deleted)"));
}

CASE(mem_memfd_closed) {
    int fd = memfd_create("thing", 0);
    ftruncate(fd, 20000);
    char *p = mmap(0, 20480, RW, MAP_SHARED, fd, 0);
    char *q = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 4096);
    close(fd);
    strcpy(p + 5000, "hello");
    restored();
    CHECK(!strcmp(p + 5000, "hello") && !strcmp(q + 5000 - 4096, "hello"));
    strcpy(p + 4096, "again");
    CHECK(!strcmp(q, "again"));
}

CASE(mem_memfd_private) {
    int fd = memfd_create("thing", 0);
    ftruncate(fd, 8192);
    pwrite(fd, "base", 5, 0);
    pwrite(fd, "more", 5, 4096);
    char *p = mmap(0, 8192, RW, MAP_PRIVATE, fd, 0);
    p[0] = 'C';
    restored();
    CHECK(!strcmp(p, "Case") && !strcmp(p + 4096, "more"));
    char b[5];
    pread(fd, b, 5, 0);
    CHECK(!strcmp(b, "base"));
}

CASE(mem_memfd_seals) {
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    write(fd, "content", 7);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
    restored();
    CHECK(fcntl(fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
    CHECK(write(fd, "x", 1) == -1 && errno == EPERM);
    CHECK(ftruncate(fd, 3) == -1);
    char b[8] = {0};
    CHECK(pread(fd, b, 7, 0) == 7 && !strcmp(b, "content"));
    CHECK(lseek(fd, 0, SEEK_CUR) == 7);
}

CASE(mem_memfd_future_write) {
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    ftruncate(fd, 4096);
    char *p = mmap(0, 4096, RW, MAP_SHARED, fd, 0);
    strcpy(p, "old");
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0);
    restored();
    CHECK(fcntl(fd, F_GET_SEALS) == (F_SEAL_FUTURE_WRITE | F_SEAL_SEAL));
    strcpy(p, "new");
    char b[4];
    pread(fd, b, 4, 0);
    CHECK(!strcmp(b, "new"));
    CHECK(pwrite(fd, "x", 1, 0) == -1);
}

CASE(mem_memfd_noseal) {
    int fd = memfd_create("plain", 0);
    restored();
    CHECK(fcntl(fd, F_GET_SEALS) == F_SEAL_SEAL);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EPERM);
}

CASE(mem_memfd_hugetlb) {
    int fd = memfd_create("huge", MFD_HUGETLB);
    char *p = 0;
    if (fd >= 0 && !ftruncate(fd, 2 << 20)) { p = mmap(0, 2 << 20, RW, MAP_SHARED, fd, 0); if (p == MAP_FAILED) p = 0; else strcpy(p, "huge"); } restored();
    if (p) {
        CHECK(!strcmp(p, "huge"));
        CHECK(has_flag(p, "ht") == 1);
        struct stat s;
        fstat(fd, &s);
        CHECK(s.st_blksize == 2 << 20);
    }
}

CASE(mem_hugetlb_private) {
    char *p = mmap(0, 2 << 20, RW, ANON | MAP_HUGETLB, -1, 0);
    if (p == MAP_FAILED) { restored(); return; } strcpy(p, "huge");
    restored();
    CHECK(!strcmp(p, "huge"));
    CHECK(has_flag(p, "ht") == 1);
}

CASE(mem_hugetlb_shared) {
    char *p = mmap(0, 2 << 20, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (p == MAP_FAILED) { restored(); return; } strcpy(p, "huge");
    restored();
    CHECK(!strcmp(p, "huge"));
    CHECK(has_flag(p, "ht") == 1);
}

CASE(mem_deleted_private) {
    int fd = open("del", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char b[8192];
    memset(b, 'a', 8192);
    write(fd, b, 8192);
    char *p = mmap(0, 8192, RW, MAP_PRIVATE, fd, 0);
    close(fd);
    unlink("del");
    p[0] = 'b';
    restored();
    CHECK(p[0] == 'b' && p[1] == 'a' && p[8191] == 'a');
}

CASE(mem_deleted_shared) {
    int fd = open("del", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char b[8192];
    memset(b, 'a', 8192);
    write(fd, b, 8192);
    char *p = mmap(0, 8192, RW, MAP_SHARED, fd, 0);
    unlink("del");
    p[0] = 'b';
    restored();
    CHECK(p[0] == 'b' && p[1] == 'a' && p[8191] == 'a');
    char c;
    CHECK(pread(fd, &c, 1, 0) == 1 && c == 'b');
    p[1] = 'z';
    CHECK(pread(fd, &c, 1, 1) == 1 && c == 'z');
}

CASE(mem_file_shared) {
    int fd = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(fd, 8192);
    char *p = mmap(0, 8192, RW, MAP_SHARED, fd, 0);
    strcpy(p, "one");
    restored();
    CHECK(!strcmp(p, "one"));
    strcpy(p, "two");
    char b[4];
    CHECK(pread(fd, b, 4, 0) == 4 && !strcmp(b, "two"));
    int g = open("shared", O_RDONLY);
    CHECK(pread(g, b, 4, 0) == 4 && !strcmp(b, "two"));
}

CASE(mem_file_shared_ro) {
    int fd = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(fd, "hello", 6);
    int r = open("shared", O_RDONLY);
    char *p = mmap(0, 4096, PROT_READ, MAP_SHARED, r, 0);
    restored();
    CHECK(!strcmp(p, "hello"));
    pwrite(fd, "J", 1, 0);
    CHECK(p[0] == 'J');
    CHECK(mprotect(p, 4096, RW) == -1 && errno == EACCES);
}

CASE(mem_file_beyond_end) {
    int fd = open("short", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(fd, "hello", 6);
    char *p = mmap(0, 3 * 4096, RW, MAP_SHARED, fd, 0);
    restored();
    CHECK(!strcmp(p, "hello"));
    ftruncate(fd, 3 * 4096);
    p[8192] = 1;
    CHECK(p[8192] == 1);
}

CASE(mem_dev_zero_shared) {
    int fd = open("/dev/zero", O_RDWR);
    char *p = mmap(0, 8192, RW, MAP_SHARED, fd, 0);
    close(fd);
    strcpy(p, "zero");
    pid_t c;
    int e[2];
    pipe(e);
    c = fork();
    if (!c) {
        char b;
        close(e[1]);
        read(e[0], &b, 1);
        _exit(p[4096]);
    }
    usleep(10000);
    restored();
    CHECK(!strcmp(p, "zero"));
    p[4096] = 9;
    write(e[1], "x", 1);
    int st;
    waitpid(c, &st, 0);
    CHECK(WEXITSTATUS(st) == 9);
}

CASE(mem_dev_zero_private) {
    int fd = open("/dev/zero", O_RDWR);
    char *p = mmap(0, 8192, RW, MAP_PRIVATE, fd, 0);
    close(fd);
    strcpy(p, "zero");
    restored();
    CHECK(!strcmp(p, "zero") && !p[5000]);
}

CASE(mem_mremap_moved) {
    char *p = map(4 * 4096, RW, ANON);
    memset(p, 6, 4 * 4096);
    char *room = map(1 << 20, PROT_NONE, ANON);
    char *q = mremap(p, 4 * 4096, 8 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    CHECK(q == room);
    q[7 * 4096] = 1;
    restored();
    CHECK(q[0] == 6 && q[7 * 4096] == 1);
    q = mremap(q, 8 * 4096, 2 * 4096, 0);
    CHECK(q[4096] == 6);
}

CASE(mem_mremap_shared_dup) {
    char *p = mmap(0, 8192, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(p, "x");
    char *q = mremap(p, 0, 8192, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED);
    restored();
    strcpy(p, "both");
    CHECK(!strcmp(q, "both"));
}

CASE(mem_shared_offsets) {
    char *p = mmap(0, 4 * 4096, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4; i++) p[i * 4096] = i + 1;
    munmap(p + 4096, 4096);
    mprotect(p + 2 * 4096, 4096, PROT_READ);
    restored();
    CHECK(p[0] == 1 && p[2 * 4096] == 3 && p[3 * 4096] == 4);
    CHECK(perm(p + 4096, 0) == 0 && perm(p + 8192, 1) == '-');
    mprotect(p + 8192, 4096, RW);
    p[8192] = 9;
}

CASE(mem_remap_file_pages_order) {
    int fd = memfd_create("m", 0);
    ftruncate(fd, 3 * 4096);
    char *p = mmap(0, 3 * 4096, RW, MAP_SHARED, fd, 0);
    for (int i = 0; i < 3; i++) p[i * 4096] = 'a' + i;
    for (int i = 0; i < 3; i++) CHECK(mmap(p + i * 4096, 4096, RW, MAP_SHARED | MAP_FIXED, fd, (2 - i) * 4096) != MAP_FAILED);
    restored();
    CHECK(p[0] == 'c' && p[4096] == 'b' && p[8192] == 'a');
}

CASE(mem_many_regions) {
    char *p = map(2000 * 4096, RW, ANON);
    for (int i = 0; i < 2000; i++) {
        p[i * 4096] = i;
        if (i & 1) mprotect(p + i * 4096, 4096, PROT_READ);
    }
    restored();
    for (int i = 0; i < 2000; i++) CHECK(p[i * 4096] == (char)i);
    CHECK(perm(p + 4096, 1) == '-' && perm(p + 8192, 1) == 'w');
}

CASE(mem_at_arena) {
    char *p = mmap((void *)(1ul << 32), 8192, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(p != MAP_FAILED);
    p[1] = 3;
    restored();
    CHECK(p[1] == 3);
}

CASE(mem_pkey) {
    int k = pkey_alloc(0, 0);
    char *p = map(8192, RW, ANON);
    p[0] = 5;
    if (k >= 0) CHECK(pkey_mprotect(p, 8192, RW, k) == 0);
    restored();
    CHECK(p[0] == 5);
    if (k >= 0) { pkey_set(k, PKEY_DISABLE_ACCESS); CHECK(pkey_free(k) == 0); }
}

CASE(mem_sealed) {
    char *p = map(8192, RW, ANON);
    p[0] = 5;
    int r = syscall(SYS_mseal, p, 8192, 0) || has_flag(p, "sl") != 1;
    restored();
    CHECK(p[0] == 5);
    if (!r) CHECK(mprotect(p, 8192, PROT_READ) == -1 && errno == EPERM);
}

CASE(mem_droppable) {
    char *p = mmap(0, 8192, RW, 0x08 | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || has_flag(p, "dp") != 1) { restored(); return; } p[0] = 5;
    restored();
    CHECK(p[0] == 5 || p[0] == 0);
    CHECK(has_flag(p, "dp") == 1);
}

CASE(mem_guard) {
    char *p = map(3 * 4096, RW, ANON);
    memset(p, 1, 3 * 4096);
    int r = madvise(p + 4096, 4096, 102);
    struct utsname u;
    int major, minor;
    uname(&u);
    sscanf(u.release, "%d.%d", &major, &minor);
    if (major * 100 + minor < 616) r = 1;
    restored();
    CHECK(p[0] == 1 && p[8192] == 1);
    if (!r) {
        int e[2];
        pipe(e);
        CHECK(write(e[1], p + 4096, 1) == -1 && errno == EFAULT);
    }
}

CASE(mem_vdso_time) {
    restored();
    int64_t a = now_ns();
    struct timeval t;
    CHECK(!gettimeofday(&t, 0));
    CHECK(t.tv_sec > 1700000000 && now_ns() >= a);
    unsigned c, n;
    CHECK(getcpu(&c, &n) == 0);
    CHECK(time(0) > 1700000000);
}

CASE(mem_shm_posix) {
    char n[50];
    sprintf(n, "/vcs%d", getpid());
    int fd = shm_open(n, O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 8192);
    char *p = mmap(0, 8192, RW, MAP_SHARED, fd, 0);
    strcpy(p, "shm");
    restored();
    CHECK(!strcmp(p, "shm"));
    strcpy(p, "new");
    char b[4];
    pread(fd, b, 4, 0);
    CHECK(!strcmp(b, "new"));
    shm_unlink(n);
}

CASE(mem_shm_posix_unlinked) {
    char n[50];
    sprintf(n, "/vcs%d", getpid());
    int fd = shm_open(n, O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 8192);
    char *p = mmap(0, 8192, RW, MAP_SHARED, fd, 0);
    shm_unlink(n);
    strcpy(p, "shm");
    restored();
    CHECK(!strcmp(p, "shm"));
    strcpy(p, "new");
    char b[4];
    pread(fd, b, 4, 0);
    CHECK(!strcmp(b, "new"));
}

CASE(mem_exe_args) {
    char b[300] = {0};
    restored();
    int fd = open("/proc/self/cmdline", O_RDONLY);
    int n = read(fd, b, 300);
    CHECK(n > 0 && strstr(b + strlen(b) + 1, "mem_exe_args"));
    char l[300] = {0};
    CHECK(readlink("/proc/self/exe", l, 299) > 0 && strstr(l, "memory"));
    FILE *f = fopen("/proc/self/environ", "r");
    CHECK(f && fgetc(f) != EOF);
    fd = open("/proc/self/auxv", O_RDONLY);
    unsigned long v[2];
    CHECK(read(fd, v, 16) == 16);
}

CASE(mem_set_mm_args) {
    static char args[] = "renamed process\0second";
    int r = prctl(PR_SET_MM, PR_SET_MM_ARG_START, args, 0, 0);
    r |= prctl(PR_SET_MM, PR_SET_MM_ARG_END, args + sizeof args, 0, 0);
    restored();
    if (!r) {
        char b[300] = {0};
        int fd = open("/proc/self/cmdline", O_RDONLY);
        read(fd, b, 300);
        CHECK(!strcmp(b, "renamed process"));
    }
}

CASE(mem_argv_rewritten) {
    FILE *f = fopen("/proc/self/stat", "r");
    char b[3000];
    unsigned long s = 0;
    fgets(b, 3000, f);
    char *p = strrchr(b, ')') + 2;
    int i = 3;
    for (char *t = strtok(p, " "); t; t = strtok(0, " "), i++) if (i == 48) s = strtoul(t, 0, 10);
    fclose(f);
    CHECK(s);
    strcpy((char *)s, "new");
    restored();
    int fd = open("/proc/self/cmdline", O_RDONLY);
    char c[300] = {0};
    read(fd, c, 300);
    CHECK(!strcmp(c, "new"));
}

CASE(mem_private_file_grown_dontneed) {
    int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char b[8192];
    memset(b, 'a', 8192);
    write(fd, b, 8192);
    char *p = mmap(0, 8192, RW, MAP_PRIVATE, fd, 0);
    p[0] = 'x';
    p[4096] = 'y';
    madvise(p, 4096, MADV_DONTNEED);
    restored();
    CHECK(p[0] == 'a' && p[4096] == 'y');
}

CASE(mem_fills_address_space) {
    char *p[90];
    int n = 0;
    for (; n < 90; n++) {
        p[n] = mmap(0, 1ul << 40, PROT_READ, ANON | MAP_NORESERVE, -1, 0);
        if (p[n] == MAP_FAILED) break;
    }
    restored();
    for (int i = 0; i < n; i++) CHECK(!p[i][12345]);
}

static int policy(void *at, unsigned long *nodes) {
    int mode = -1;
    unsigned long found[16] = {0};
    CHECK(syscall(SYS_get_mempolicy, &mode, found, 1024, at, 2 /* MPOL_F_ADDR */) == 0);
    *nodes = found[0];
    return mode;
}
CASE(mem_policies) {
    unsigned long node = 1, nodes;
    char *p = map(12 << 12, RW, ANON), *s = map(4 << 12, RW, MAP_SHARED | MAP_ANONYMOUS);
    p[0] = 1;
    int has = syscall(SYS_mbind, p + (4 << 12), 4 << 12, 2 /* MPOL_BIND */, &node, 64, 0) == 0; /* a kernel may have no NUMA */
    if (has) {
        CHECK(syscall(SYS_mbind, p + (8 << 12), 4 << 12, 3 /* MPOL_INTERLEAVE */ | 1 << 15 /* MPOL_F_STATIC_NODES */, &node, 64, 0) == 0);
        CHECK(syscall(SYS_mbind, s, 4 << 12, 1 /* MPOL_PREFERRED */, &node, 64, 0) == 0);
    }
    p[5 << 12] = 2;
    s[0] = 3;
    restored();
    CHECK(p[0] == 1 && p[5 << 12] == 2 && s[0] == 3);
    if (!has) return;
    CHECK(policy(p, &nodes) == 0);
    CHECK(policy(p + (4 << 12), &nodes) == 2 && nodes == 1);
    CHECK(policy(p + (7 << 12), &nodes) == 2 && nodes == 1);
    CHECK(policy(p + (8 << 12), &nodes) == (3 | 1 << 15) && nodes == 1);
    CHECK(policy(s, &nodes) == 1 && nodes == 1);
}

CASE(mem_policies_under_that_of_the_thread) { /* the kernel lists regions without a policy of their own with that of the thread */
    unsigned long node = 1, nodes;
    char *p = map(8 << 12, RW, ANON);
    int has = syscall(SYS_mbind, p, 4 << 12, 4 /* MPOL_LOCAL */, 0, 0, 0) == 0;
    if (has) CHECK(syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &node, 64) == 0);
    restored();
    if (!has) return;
    CHECK(policy(p, &nodes) == 4 && nodes == 0);
    CHECK(policy(p + (4 << 12), &nodes) == 0);
}

static void check_lock_future(int flags) { /* though nothing is locked yet */
    unsigned char resident[4];
    int locked = mlockall(flags) == 0; /* RLIMIT_MEMLOCK */
    restored();
    if (!locked) return;
    char *p = map(4 << 12, RW, ANON);
    CHECK(has_flag(p, "lo") == 1 && !mincore(p, 4 << 12, resident) && (resident[1] & 1) == !(flags & MCL_ONFAULT));
}
CASE(mem_lock_future_alone) { check_lock_future(MCL_FUTURE); }
CASE(mem_lock_future_on_fault) { check_lock_future(MCL_FUTURE | MCL_ONFAULT); }

CASE(mem_protection_given_back) { /* the three regions become one again, which mremap(2) can make larger */
    char *p = map(10 << 12, RW, ANON), *moved;
    memset(p, 1, 10 << 12);
    CHECK(mprotect(p + (1 << 12), 1 << 12, PROT_READ) == 0);
    restored();
    CHECK(mprotect(p + (1 << 12), 1 << 12, RW) == 0);
    moved = mremap(p, 10 << 12, 20 << 12, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && moved[0] == 1 && moved[1 << 12] == 1 && moved[9 << 12] == 1);
}

CASE(mem_auxv_in_proc) {
    char before[2000], after[2000];
    int fd = open("/proc/self/auxv", O_RDONLY);
    ssize_t size = read(fd, before, sizeof before);
    close(fd);
    restored();
    fd = open("/proc/self/auxv", O_RDONLY);
    CHECK(size > 100 && read(fd, after, sizeof after) == size && !memcmp(before, after, size));
}

CASE(mem_sparse) {
    /* a terabyte, of which a few pages exist */
    int fd = memfd_create("sparse", 0);
    CHECK(fd >= 0 && !ftruncate(fd, 10l << 30));
    char *file = mmap(0, 10l << 30, RW, MAP_SHARED | MAP_NORESERVE, fd, 0);
    char *shared = mmap(0, 4l << 30, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *reserved = mmap(0, 1l << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
    CHECK(file != MAP_FAILED && shared != MAP_FAILED && reserved != MAP_FAILED && !mprotect(reserved + (1l << 39), 8192, RW));
    file[5l << 30] = shared[3l << 30] = reserved[1l << 39] = 7;
    restored();
    struct stat s;
    CHECK(file[5l << 30] == 7 && shared[3l << 30] == 7 && reserved[1l << 39] == 7 && !file[0] && !shared[0]);
    CHECK(!fstat(fd, &s) && s.st_size == 10l << 30 && s.st_blocks < 1000);
}
