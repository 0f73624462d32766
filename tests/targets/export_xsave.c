// The extended components of the XSAVE area as JSON: number, offset, size (CPUID leaf 0xd).
#include <cpuid.h>
#include <stdio.h>

int main(void)
{
    unsigned a, b, c, d, low, high;
    const char *comma = "";
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    printf("[");
    for (unsigned number = 2; number < 32; number++) {
        if (!(low >> number & 1))
            continue;
        __cpuid_count(0xd, number, a, b, c, d);
        printf("%s[%u, %u, %u]", comma, number, b, a);
        comma = ", ";
    }
    puts("]");
    return 0;
}
