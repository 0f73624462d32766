"""Names that stand in the text for the kernel's numbers (x86-64).

The tables are part of the image format: a name never changes its meaning. Each table is
checked against the system's headers by a test.
"""

from __future__ import annotations

from typing import Annotated

from vcsimg.image.sections.item import choice, flags

SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 16: "SIGSTKFLT", 17: "SIGCHLD",
    18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU", 23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ",
    26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO", 30: "SIGPWR", 31: "SIGSYS",
}  # fmt: skip
"""signal(7). Real-time signals, 32 to 64, stand as numbers: SIGRTMIN belongs to the C library."""

SIGACTION_FLAGS = {
    0x1: "SA_NOCLDSTOP", 0x2: "SA_NOCLDWAIT", 0x4: "SA_SIGINFO", 0x400: "SA_UNSUPPORTED", 0x800: "SA_EXPOSE_TAGBITS",
    0x4000000: "SA_RESTORER", 0x8000000: "SA_ONSTACK", 0x10000000: "SA_RESTART", 0x40000000: "SA_NODEFER",
    0x80000000: "SA_RESETHAND",
}  # fmt: skip
"""sigaction(2), asm/signal.h."""

ALTSTACK_FLAGS = {1: "SS_ONSTACK", 2: "SS_DISABLE", 0x80000000: "SS_AUTODISARM"}
"""sigaltstack(2)."""

ACCESS_MODES = {0: "O_RDONLY", 1: "O_WRONLY", 2: "O_RDWR", 3: "O_ACCMODE"}
OPEN_FLAGS = {
    0o20200000: "O_TMPFILE", 0o4010000: "O_SYNC", 0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC",
    0o2000: "O_APPEND", 0o4000: "O_NONBLOCK", 0o10000: "O_DSYNC", 0o20000: "O_ASYNC", 0o40000: "O_DIRECT", 0o100000: "O_LARGEFILE",
    0o200000: "O_DIRECTORY", 0o400000: "O_NOFOLLOW", 0o1000000: "O_NOATIME", 0o10000000: "O_PATH",
}  # fmt: skip
"""open(2), asm-generic/fcntl.h. O_CLOEXEC belongs to the descriptor, not to the open file."""

SOCKET_FAMILIES = {
    1: "unix", 2: "inet", 10: "inet6", 15: "key", 16: "netlink", 17: "packet", 29: "can", 30: "tipc", 31: "bluetooth",
    38: "alg", 40: "vsock", 44: "xdp", 45: "mctp",
}  # fmt: skip
"""address_families(7), linux/socket.h."""

SOCKET_TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}

SOCKET_STATES = {
    1: "established", 2: "syn_sent", 3: "syn_recv", 4: "fin_wait1", 5: "fin_wait2", 6: "time_wait", 7: "close", 8: "close_wait",
    9: "last_ack", 10: "listen", 11: "closing", 12: "new_syn_recv",
}  # fmt: skip
"""net/tcp_states.h; unix sockets use established, close and listen of it."""

SHUTDOWN_FLAGS = {1: "RCV", 2: "SND"}
"""sk_shutdown, net/sock.h."""

EPOLL_EVENTS = {
    0x1: "EPOLLIN", 0x2: "EPOLLPRI", 0x4: "EPOLLOUT", 0x8: "EPOLLERR", 0x10: "EPOLLHUP", 0x40: "EPOLLRDNORM", 0x80: "EPOLLRDBAND",
    0x100: "EPOLLWRNORM", 0x200: "EPOLLWRBAND", 0x400: "EPOLLMSG", 0x2000: "EPOLLRDHUP", 0x10000000: "EPOLLEXCLUSIVE",
    0x20000000: "EPOLLWAKEUP", 0x40000000: "EPOLLONESHOT", 0x80000000: "EPOLLET",
}  # fmt: skip
"""epoll_ctl(2), linux/eventpoll.h."""

INOTIFY_EVENTS = {
    0x1: "IN_ACCESS", 0x2: "IN_MODIFY", 0x4: "IN_ATTRIB", 0x8: "IN_CLOSE_WRITE", 0x10: "IN_CLOSE_NOWRITE", 0x20: "IN_OPEN",
    0x40: "IN_MOVED_FROM", 0x80: "IN_MOVED_TO", 0x100: "IN_CREATE", 0x200: "IN_DELETE", 0x400: "IN_DELETE_SELF",
    0x800: "IN_MOVE_SELF", 0x2000: "IN_UNMOUNT", 0x4000: "IN_Q_OVERFLOW", 0x8000: "IN_IGNORED", 0x1000000: "IN_ONLYDIR",
    0x2000000: "IN_DONT_FOLLOW", 0x4000000: "IN_EXCL_UNLINK", 0x20000000: "IN_MASK_ADD", 0x40000000: "IN_ISDIR",
    0x80000000: "IN_ONESHOT",
}  # fmt: skip
"""inotify(7), linux/inotify.h."""

SEALS = {
    0x1: "F_SEAL_SEAL",
    0x2: "F_SEAL_SHRINK",
    0x4: "F_SEAL_GROW",
    0x8: "F_SEAL_WRITE",
    0x10: "F_SEAL_FUTURE_WRITE",
    0x20: "F_SEAL_EXEC",
}
"""fcntl(2), linux/fcntl.h."""

CLOCKS = {
    0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 2: "CLOCK_PROCESS_CPUTIME_ID", 3: "CLOCK_THREAD_CPUTIME_ID",
    4: "CLOCK_MONOTONIC_RAW", 5: "CLOCK_REALTIME_COARSE", 6: "CLOCK_MONOTONIC_COARSE", 7: "CLOCK_BOOTTIME",
    8: "CLOCK_REALTIME_ALARM", 9: "CLOCK_BOOTTIME_ALARM",    11: "CLOCK_TAI",
}  # fmt: skip
"""clock_getres(2), linux/time.h. A negative number is the CPU clock of a process or thread."""

TIMERFD_FLAGS = {1: "TFD_TIMER_ABSTIME", 2: "TFD_TIMER_CANCEL_ON_SET"}
"""timerfd_create(2)."""

POLICIES = {
    0: "SCHED_OTHER",
    1: "SCHED_FIFO",
    2: "SCHED_RR",
    3: "SCHED_BATCH",
    5: "SCHED_IDLE",
    6: "SCHED_DEADLINE",
    7: "SCHED_EXT",
}
"""sched(7), linux/sched.h."""

SCHEDULING_FLAGS = {0x1: "SCHED_FLAG_RESET_ON_FORK", 0x2: "SCHED_FLAG_RECLAIM", 0x4: "SCHED_FLAG_DL_OVERRUN"}
"""sched_setattr(2)."""

SECCOMP_MODES = {0: "disabled", 1: "strict", 2: "filter"}

PERSONALITY_FLAGS = {
    0x20000: "UNAME26", 0x40000: "ADDR_NO_RANDOMIZE", 0x80000: "FDPIC_FUNCPTRS", 0x100000: "MMAP_PAGE_ZERO",
    0x200000: "ADDR_COMPAT_LAYOUT", 0x400000: "READ_IMPLIES_EXEC", 0x800000: "ADDR_LIMIT_32BIT", 0x1000000: "SHORT_INODE",
    0x2000000: "WHOLE_SECONDS", 0x4000000: "STICKY_TIMEOUTS", 0x8000000: "ADDR_LIMIT_3GB",
}  # fmt: skip
"""personality(2)."""

RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}
"""What an interrupted system call says to the kernel itself, linux/errno.h."""

AUXV = {
    3: "AT_PHDR", 4: "AT_PHENT", 5: "AT_PHNUM", 6: "AT_PAGESZ", 7: "AT_BASE", 8: "AT_FLAGS", 9: "AT_ENTRY", 11: "AT_UID",
    12: "AT_EUID",
    13: "AT_GID", 14: "AT_EGID", 15: "AT_PLATFORM", 16: "AT_HWCAP", 17: "AT_CLKTCK", 23: "AT_SECURE", 24: "AT_BASE_PLATFORM",
    25: "AT_RANDOM", 26: "AT_HWCAP2", 27: "AT_RSEQ_FEATURE_SIZE", 28: "AT_RSEQ_ALIGN", 29: "AT_HWCAP3", 30: "AT_HWCAP4",
    31: "AT_EXECFN", 33: "AT_SYSINFO_EHDR", 51: "AT_MINSIGSTKSZ",
}  # fmt: skip
"""getauxval(3), linux/auxvec.h."""

SignalNumber = Annotated[int, choice(SIGNALS)]
SigactionFlags = Annotated[int, flags(SIGACTION_FLAGS)]
AltstackFlags = Annotated[int, flags(ALTSTACK_FLAGS)]
OpenFlags = Annotated[int, flags(OPEN_FLAGS, mode=ACCESS_MODES)]
SocketFamily = Annotated[int, choice(SOCKET_FAMILIES)]
SocketType = Annotated[int, choice(SOCKET_TYPES)]
SocketState = Annotated[int, choice(SOCKET_STATES)]
ShutdownFlags = Annotated[int, flags(SHUTDOWN_FLAGS)]
EpollEvents = Annotated[int, flags(EPOLL_EVENTS)]
InotifyEvents = Annotated[int, flags(INOTIFY_EVENTS)]
Seals = Annotated[int, flags(SEALS)]
Clock = Annotated[int, choice(CLOCKS)]
TimerfdFlags = Annotated[int, flags(TIMERFD_FLAGS)]
Policy = Annotated[int, choice(POLICIES)]
SchedulingFlags = Annotated[int, flags(SCHEDULING_FLAGS)]
SeccompMode = Annotated[int, choice(SECCOMP_MODES)]
Personality = Annotated[int, flags(PERSONALITY_FLAGS)]
Restart = Annotated[int, choice(RESTARTS)]
AuxvKey = Annotated[int, choice(AUXV)]
