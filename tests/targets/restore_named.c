/* What does not come back, and so is named. Cases as in restore_cases.h, which are not verified; those that this kernel cannot have
   print "not here". */
#include "restore_cases.h"

static void not_here(void) { printf("not here\n"); fflush(stdout); pause(); }

CASE(named_session_keyring) {
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "mine") <= 0) not_here();
    if (syscall(SYS_add_key, "user", "key", "payload", 7, -3 /* KEY_SPEC_SESSION_KEYRING */) <= 0) not_here();
    restored();
}
