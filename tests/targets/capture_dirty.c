/* Dirties memory at random by all means, one round for each line on stdin: "SEED COUNT". Prints "done" after each.
 * Prints "ready" first. Every means is one case below. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define AREA (8ul << 20)

static uint64_t state;
static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545F4914F6CDD1Dull;
}

static char *area, *huge, *shared, *view, *file, *fixed;
static char *moving;
static size_t moving_pages = 16;
static int memory_fd, source_fd, pipe_fds[2];
static char data_segment[1 << 16] = "initialised";
static char bss_segment[1 << 18];
static pid_t children[4];
static char *blocks[32], *visitors[16];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static char *map(size_t size, int prot, int flags, int fd)
{
	char *p = mmap(NULL, size, prot, flags, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void scribble(char *p, size_t size)
{
	size_t at = rnd() % size, n = 1 + rnd() % 64;
	for (size_t i = 0; i < n && at + i < size; i++)
		p[at + i] = rnd();
}

static void step(void)
{
	char *page = area + rnd() % (AREA / PAGE) * PAGE;
	size_t run = (1 + rnd() % 8) * PAGE;
	if (page + run > area + AREA)
		run = area + AREA - page;
	switch (rnd() % 22) {
	case 0: case 1: case 2:
		scribble(area, AREA);
		break;
	case 3:
		memset(page, rnd(), run);
		break;
	case 4:
		memset(page, 0, run);
		break;
	case 5: /* the kernel writes: read() */
		if (pread(source_fd, page, run, 0) < 0)
			die("pread");
		break;
	case 6: { /* the kernel writes: process_vm_writev */
		char bytes[64];
		memset(bytes, rnd(), sizeof bytes);
		struct iovec from = { bytes, sizeof bytes }, to = { page + rnd() % 4000, sizeof bytes };
		if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0)
			die("process_vm_writev");
		break;
	}
	case 7: /* through the other mapping of the same memory */
		scribble(view, AREA / 4);
		break;
	case 8: { /* write() into shared memory */
		uint64_t word = rnd();
		if (pwrite(memory_fd, &word, 8, rnd() % (AREA / 4 - 8)) != 8)
			die("pwrite");
		break;
	}
	case 9:
		if (madvise(page, run, MADV_DONTNEED))
			die("MADV_DONTNEED");
		break;
	case 10: { /* move and resize */
		size_t pages = 1 + rnd() % 64;
		moving = mremap(moving, moving_pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
		if (moving == MAP_FAILED)
			die("mremap");
		moving_pages = pages;
		scribble(moving, moving_pages * PAGE);
		break;
	}
	case 11: /* a new mapping over an old one */
		if (mmap(fixed, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			die("MAP_FIXED");
		scribble(fixed, 64 * PAGE);
		break;
	case 12: /* a copy-on-write sharer that lives on */
	{
		int i = rnd() % 4;
		if (children[i]) {
			kill(children[i], SIGKILL);
			waitpid(children[i], NULL, 0);
		}
		children[i] = fork();
		if (children[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
			_exit(0);
		}
		break;
	}
	case 13: /* private file pages */
		scribble(file, 16 * PAGE);
		break;
	case 14:
		if (madvise(file, 16 * PAGE, MADV_DONTNEED))
			die("MADV_DONTNEED of a file");
		break;
	case 15:
		scribble(huge, 8 << 20);
		break;
	case 16:
		scribble(data_segment, sizeof data_segment);
		scribble(bss_segment, sizeof bss_segment);
		break;
	case 17: { /* a short-lived mapping next to others */
		char **p = &visitors[rnd() % 16];
		if (*p)
			munmap(*p, 4 * PAGE);
		*p = rnd() % 2 ? map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1) : NULL;
		if (*p)
			scribble(*p, 4 * PAGE);
		break;
	}
	case 18: /* protections come and go, and split the region */
		if (mprotect(page, run, PROT_READ) || mprotect(page, run, PROT_READ | PROT_WRITE))
			die("mprotect");
		scribble(page, run);
		break;
	case 19: { /* heap */
		char **p = &blocks[rnd() % 32];
		free(*p);
		*p = malloc(1 + rnd() % 300000);
		if (!*p)
			die("malloc");
		(*p)[0] = rnd();
		break;
	}
	case 20: /* content behind no permission at all */
		page[5] = rnd();
		if (mprotect(page, PAGE, PROT_NONE) || mprotect(page, PAGE, PROT_READ | PROT_WRITE))
			die("mprotect");
		break;
	case 21: /* release in bulk: page tables go too */
		if (rnd() % 4 == 0 && madvise(area + (rnd() % 3) * (2ul << 20), 4ul << 20, MADV_DONTNEED))
			die("MADV_DONTNEED");
		break;
	}
}

int main(int argc, char **argv)
{
	char line[128];
	area = map(AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise(area, AREA / 2, MADV_MERGEABLE);
	huge = map(16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	huge = (char *)(((uintptr_t)huge + (2 << 20) - 1) & ~((2ul << 20) - 1));
	madvise(huge, 8 << 20, MADV_HUGEPAGE);
	memory_fd = memfd_create("shared", 0);
	if (memory_fd < 0 || ftruncate(memory_fd, AREA / 4))
		die("memfd");
	shared = map(AREA / 4, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd);
	view = map(AREA / 4, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd);
	source_fd = open("/proc/self/exe", O_RDONLY);
	file = map(16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, source_fd);
	moving = map(moving_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fixed = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	char *wiped = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memset(wiped, 'w', 4 * PAGE);
	madvise(wiped, 4 * PAGE, MADV_WIPEONFORK);
	char *unforked = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memset(unforked, 'u', 4 * PAGE);
	madvise(unforked, 4 * PAGE, MADV_DONTFORK);
	if (pipe(pipe_fds))
		die("pipe");
	memset(area, 1, AREA / 4);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		unsigned long long seed;
		int count;
		if (sscanf(line, "%llu %d", &seed, &count) != 2)
			return 2;
		state = seed * 2 + 1;
		if (count < 0) /* run on by itself until the next line */
			for (;;)
				step();
		for (int i = 0; i < count; i++)
			step();
		wiped[0]++;
		unforked[0]++;
		puts("done");
		fflush(stdout);
	}
	for (int i = 0; i < 4; i++)
		if (children[i])
			kill(children[i], SIGKILL);
	return 0;
}
