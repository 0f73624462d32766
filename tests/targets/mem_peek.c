/* PTRACE_PEEKDATA without Python: mem_peek PID ADDRESS BYTES attaches, reads and prints the seconds that the best of three passes took. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	pid_t pid = atoi(argv[1]);
	char *address = (char *)strtoull(argv[2], NULL, 0);
	size_t words = strtoull(argv[3], NULL, 0) / sizeof(long);
	long *buffer = malloc(words * sizeof(long));
	double best = 1e9;

	if (argc < 4 || ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, NULL, 0) != pid)
		return 1;
	for (int round = 0; round < 3; round++) {
		double started = now();
		for (size_t i = 0; i < words; i++)
			buffer[i] = ptrace(PTRACE_PEEKDATA, pid, address + i * sizeof(long), 0);
		double took = now() - started;
		if (took < best)
			best = took;
	}
	printf("%.9f\n", best);
	return ptrace(PTRACE_DETACH, pid, 0, 0) != 0;
}
