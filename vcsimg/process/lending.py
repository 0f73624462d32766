"""Which thread of a held process can be borrowed."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.kernel import procfs, ptrace
from vcsimg.kernel.x86_64 import CS, CS_64BIT, NO_SYSTEM_CALL, ORIG_RAX
from vcsimg.process.code import Code, find_code
from vcsimg.process.thread import HeldThread


@dataclass(frozen=True)
class Loan:
    """A thread that can be borrowed, its status file, and the code that it can run."""

    thread: HeldThread
    status: bytes
    code: Code


def choose(pid: int, threads: list[HeldThread], memory_fd: int) -> Loan | str:
    """The thread that suits best, or the reason why there is none."""
    code = find_code(pid, threads[0].tid, memory_fd)
    if code is None:
        return "no executable mapping has a system call instruction"
    reason = "all of its threads are borrowed already"
    # A thread inside a system call is in no restartable sequence.
    for thread in sorted(threads, key=lambda thread: thread.buffer[ORIG_RAX] == NO_SYSTEM_CALL):
        if thread.is_lent:
            continue
        try:
            status = procfs.read(pid, f"task/{thread.tid}/status")
            found = _obstacle(thread, status)
        except OSError:
            found = "it is ending"
        if found is None:
            return Loan(thread, status, code)
        reason = found
    return reason


def _obstacle(thread: HeldThread, status: bytes) -> str | None:
    if b"\nSeccomp:\t" in status and b"\nSeccomp:\t0\n" not in status:
        return "a seccomp filter watches its system calls"
    if thread.stop_signal is not None:
        return "a signal is about to end it"
    if thread.buffer[CS] != CS_64BIT:
        return "it runs 32-bit code"
    if ptrace.dispatches_syscalls(thread.tid):
        return "it has its system calls dispatched to a signal handler"
    return None
