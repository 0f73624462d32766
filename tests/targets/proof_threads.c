/* A program with threads, each deep in functions of its own, and globals of several types. Prints "ready"; counts one up for each line. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct account {
	int number;
	double balance;
	char owner[16];
	struct account *next;
};

int counter = 7;
struct account last = { 2, 12.5, "grace", NULL };
struct account first = { 1, 99.25, "ada", &last };
static char *text;

static void wait_here(int depth)
{
	if (depth)
		wait_here(depth - 1);
	else
		for (;;)
			pause();
}

static void *worker(void *argument)
{
	wait_here((int)(long)argument);
	return NULL;
}

int main(void)
{
	char line[16];
	text = malloc(3 << 20);
	memset(text, 'x', 3 << 20);
	for (long i = 1; i <= 3; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, worker, (void *)i))
			return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		counter++;
		first.balance += 0.5;
		text[counter * 4096] = 'y';
		printf("%d\n", counter);
		fflush(stdout);
	}
	return 0;
}
