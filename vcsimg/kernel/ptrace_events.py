"""Following new processes and threads of a traced one: ptrace(2), PTRACE_O_TRACEFORK and PTRACE_O_TRACECLONE."""

from __future__ import annotations

import ctypes

from vcsimg.kernel import ptrace

PTRACE_GETEVENTMSG = 0x4201

PTRACE_O_TRACEFORK = 1 << 1
PTRACE_O_TRACEVFORK = 1 << 2
PTRACE_O_TRACECLONE = 1 << 3

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
NEW_TASK_EVENTS = frozenset((PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_CLONE))


def new_task(tid: int) -> int:
    """The id, as we see it, of the process or thread that a thread has just made. Raises OSError."""
    message = ctypes.c_ulong()
    ptrace.call(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value
