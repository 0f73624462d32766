/* Memory of every kind that a reader may meet, and a program that knows what must be in it.
 *
 * Prints one line with addresses:
 *   area SIZE readonly hidden end
 * area: SIZE bytes, the byte at i is (i * 7 + i / 4096) mod 251, then a page without access; two pages that are read-only, two without
 * access; `end`: where two pages end and a hole begins.
 * Then commands, one a line: "sum A N" prints a checksum of its own bytes [A, A+N); "fill A N" sets them to 'f'; "ignored" tells whether it ignores SIGSEGV
 * and SIGBUS; "exec" runs itself again; "exit" ends.
 * In the environment: MEM_IGNORE: ignore those signals. MEM_HANDLER: print "handler" upon SIGUSR1. MEM_THREAD: a second thread.
 * MEM_LIMIT: no more memory (RLIMIT_AS) or descriptors (RLIMIT_NOFILE). MEM_FILE: map 1 MiB of this file, shared; MEM_MISSING: 2 MiB less
 * a page that are never there, the page before is; both print the address on a line of its own.
 * Compiled with -DSECCOMP, it has a seccomp filter, which allows everything. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t checksum(const unsigned char *p, size_t n)
{
	uint64_t sum = 1469598103934665603u;
	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * 1099511628211u;
	return sum;
}

static void handler(int number)
{
	(void)!write(1, "handler\n", 8);
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
}

/* All pages but the first are never there: a userfaultfd that nobody reads has them. 0 if that is not permitted. */
static unsigned long missing_page(void)
{
	size_t size = 2 << 20;
	unsigned char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register rest = {.range = {(unsigned long)pages + 4096, size - 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};

	pages[0] = 1;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &rest))
		return 0;
	return rest.range.start;
}

int main(int argc, char **argv)
{
	size_t size = argc > 1 ? strtoull(argv[1], NULL, 0) : 1 << 20;
	int rw = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	unsigned char *area = mmap(NULL, size + 4096, rw, flags, -1, 0);
	for (size_t i = 0; i < size; i++)
		area[i] = (i * 7 + i / 4096) % 251;
	mprotect(area + size, 4096, PROT_NONE);

	unsigned char *readonly = mmap(NULL, 8192, rw, flags, -1, 0);
	memset(readonly, 'r', 8192);
	mprotect(readonly, 8192, PROT_READ);

	unsigned char *hidden = mmap(NULL, 8192, rw, flags, -1, 0);
	memset(hidden, 'h', 8192);
	mprotect(hidden, 8192, PROT_NONE);

	/* Far from where the kernel puts new mappings, so that the hole stays one. */
	unsigned char *edge = mmap((void *)0x200000000, 2 * 4096, rw, flags | MAP_FIXED_NOREPLACE, -1, 0);
	memset(edge, 'e', 2 * 4096);

	if (getenv("MEM_IGNORE")) {
		signal(SIGSEGV, SIG_IGN);
		signal(SIGBUS, SIG_IGN);
	}
	if (getenv("MEM_HANDLER"))
		sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART}, NULL);
	if (getenv("MEM_THREAD"))
		pthread_create(&(pthread_t){0}, NULL, sleeper, NULL);
	if (getenv("MEM_LIMIT")) {
		int address_space = !strcmp(getenv("MEM_LIMIT"), "RLIMIT_AS");
		rlim_t limit = address_space ? 8 << 20 : 3;
		setrlimit(address_space ? RLIMIT_AS : RLIMIT_NOFILE, &(struct rlimit){limit, limit});
	}
#ifdef SECCOMP
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {1, &allow};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
#endif
	printf("%lu %zu %lu %lu %lu\n", (unsigned long)area, size, (unsigned long)readonly, (unsigned long)hidden,
	       (unsigned long)(edge + 2 * 4096));
	if (getenv("MEM_FILE")) {
		int fd = open(getenv("MEM_FILE"), O_RDWR);
		printf("%lu\n", (unsigned long)mmap(NULL, 1 << 20, rw, MAP_SHARED, fd, 0));
	}
	if (getenv("MEM_MISSING"))
		printf("%lu\n", missing_page());
	fflush(stdout);

	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		unsigned long address, length;
		if (sscanf(line, "sum %lu %lu", &address, &length) == 2)
			printf("%lu\n", (unsigned long)checksum((unsigned char *)address, length));
		else if (sscanf(line, "fill %lu %lu", &address, &length) == 2) {
			memset((void *)address, 'f', length);
			printf("filled\n");
		} else if (!strncmp(line, "ignored", 7))
			printf("%d\n", signal(SIGSEGV, SIG_IGN) == SIG_IGN && signal(SIGBUS, SIG_IGN) == SIG_IGN);
		else if (!strncmp(line, "exec", 4))
			execv("/proc/self/exe", argv);
		else
			return 0;
		fflush(stdout);
	}
	return 0;
}
