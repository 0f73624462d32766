"""System calls that a stop interrupts, and that must go on as if there had been none.

Most interrupted system calls return one of the kernel's ERESTART codes, and the kernel itself restarts them when the thread
goes on. Some return EINTR at once, which is right for a signal with a handler and wrong for a mere stop (man 7 signal,
"Interruption of system calls and library functions by stop signals"). For these the result is replaced by ERESTARTNOHAND while
the thread is stopped: then the kernel decides as late as possible, EINTR if a handler is about to run, a restart otherwise, and
that decision is right even if a signal comes after we have looked.
"""

from __future__ import annotations

import errno

from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ERESTARTNOHAND, WORD

INTERRUPTED = WORD - errno.EINTR
RESTART = WORD - ERESTARTNOHAND

RESTARTABLE = frozenset(
    NR[name]
    for name in (
        "epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait", "semop", "semtimedop", "io_getevents", "io_uring_enter",
        # On sockets with SO_RCVTIMEO or SO_SNDTIMEO (net/core: sock_intr_errno), and on FUSE.
        "read", "readv", "preadv", "preadv2", "pread64", "write", "writev", "pwritev", "pwritev2", "pwrite64",
        "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "accept", "accept4", "connect", "open", "openat",
    )
)  # fmt: skip
"""System calls that have done nothing when they return EINTR. Not among them: close, which has closed the descriptor."""
