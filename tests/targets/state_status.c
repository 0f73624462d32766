/* Settings of the process as a whole: argv[1] is an empty directory. */
#include "state.h"
#include <sys/personality.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    (void)argc;
    CHECK(chdir(argv[1]) == 0);
    umask(027);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_NAME, "a) name (b") == 0);
    CHECK(personality(ADDR_NO_RANDOMIZE) >= 0);
    struct rlimit limit = {123, 456};
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = RLIM_INFINITY;
    limit.rlim_max = RLIM_INFINITY;
    limit.rlim_cur = 7777;
    CHECK(setrlimit(RLIMIT_CPU, &limit) == 0);
    FILE *file = fopen("/proc/self/oom_score_adj", "w");
    CHECK(file != NULL && fprintf(file, "345") == 3 && fclose(file) == 0);
    char line[200];
    snprintf(line, sizeof line, "%p", sbrk(100));
    ready(line);
    done();
}
