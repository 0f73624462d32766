/* Memory of every kind that a reader may meet, and a program that knows what must be in it.
 *
 * Prints one line with addresses:
 *   area SIZE readonly hidden end
 * area: SIZE bytes, the byte at i is (i * 7 + i / 4096) mod 251, then a page without access; two pages that are read-only, two without
 * access; `end`: where two pages end and a hole begins.
 * Then commands, one a line: "sum A N" prints a checksum of its own bytes [A, A+N); "ignored" tells whether it ignores SIGSEGV
 * (MEM_IGNORE makes it so); "exec" runs itself again; "exit" ends.
 * Compiled with -DSECCOMP, it has a seccomp filter, which allows everything. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static uint64_t checksum(const unsigned char *p, size_t n)
{
	uint64_t sum = 1469598103934665603u;
	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * 1099511628211u;
	return sum;
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

	if (getenv("MEM_IGNORE"))
		signal(SIGSEGV, SIG_IGN);
#ifdef SECCOMP
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {1, &allow};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
#endif
	printf("%lu %zu %lu %lu %lu\n", (unsigned long)area, size, (unsigned long)readonly, (unsigned long)hidden,
	       (unsigned long)(edge + 2 * 4096));
	fflush(stdout);

	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		unsigned long address, length;
		if (sscanf(line, "sum %lu %lu", &address, &length) == 2)
			printf("%lu\n", (unsigned long)checksum((unsigned char *)address, length));
		else if (!strncmp(line, "ignored", 7))
			printf("%d\n", signal(SIGSEGV, SIG_IGN) == SIG_IGN);
		else if (!strncmp(line, "exec", 4))
			execv("/proc/self/exe", argv);
		else
			return 0;
		fflush(stdout);
	}
	return 0;
}
