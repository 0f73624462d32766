/* Variables of several kinds; prints them when a line comes, and ends with 42. */
#include <stdio.h>

enum color { RED, GREEN = 7 };
struct point { int x; double y; };

long counter = 1;
enum color color;
struct point point = {1, 2.5};
char greeting[8] = "before";

int main(void)
{
    char line[8];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    printf("%ld %d %d %.2f %s\n", counter, color, point.x, point.y, greeting);
    return 42;
}
