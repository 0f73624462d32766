// A shared library with state of its own.
#include <unistd.h>

struct point { int x, y; const char *label; };

int library_counter = 1000;
struct point library_point = { 7, -9, "from the library" };
static long library_private = 55;

long library_wait(int fd, long depth)
{
    char byte;
    library_counter++;
    library_private += depth;
    while (read(fd, &byte, 1) < 0)
        ;
    return library_private;
}
