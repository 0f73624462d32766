/* Fills SIZE MiB, every second page incompressible, and prints "ready". For each line "PERCENT" on stdin it writes 8 bytes into that
 * part of the pages, chosen at random, and prints "ok"; for "+SIZE" it fills SIZE MiB more. With a second argument N it starts N threads that
 * sleep. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void fill(uint64_t *memory, size_t pages)
{
	for (size_t page = 0; page < pages; page++)
		for (size_t word = 0; word < 512; word++)
			memory[page << 9 | word] = page & 1 ? next() : page + word / 8;
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv)
{
	size_t pages = (size_t)atol(argv[1]) << 8;
	uint64_t *memory = malloc(pages << 12);
	char line[64];
	fill(memory, pages);
	for (int i = 0; argc > 2 && i < atoi(argv[2]); i++) {
		pthread_t thread;
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 64 << 10);
		if (pthread_create(&thread, &attributes, sleeper, NULL))
			return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		if (line[0] == '+') {
			fill(malloc((size_t)atol(line + 1) << 20), (size_t)atol(line + 1) << 8);
			puts("ok");
			fflush(stdout);
			continue;
		}
		size_t count = pages * atof(line) / 100;
		for (size_t i = 0; i < count; i++)
			memory[next() % pages << 9 | next() % 512] += next();
		puts("ok");
		fflush(stdout);
	}
	return 0;
}
