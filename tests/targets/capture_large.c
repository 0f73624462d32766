/* capture_large MIB: so much memory, every page of it different. Prints "ready" and waits until killed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t pages = (size_t)atol(argc > 1 ? argv[1] : "1") << 8;
	uint64_t *memory = malloc(pages << 12);

	if (!memory)
		return 1;
	for (size_t page = 0; page < pages; page++)
		memory[page << 9] = page + 1;
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
