"""Which thread of a held process can be borrowed."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.kernel import procfs, ptrace, seccomp
from vcsimg.kernel.x86_64 import CS, CS_64BIT, NO_SYSTEM_CALL, ORIG_RAX
from vcsimg.process import stopping
from vcsimg.process.code import Code, find_code
from vcsimg.process.thread import HeldThread


@dataclass(frozen=True)
class Loan:
    """A thread that can be borrowed, its status file, and the code that it can run. `options`: of ptrace(2), with which it is to be traced while
    it is borrowed."""

    thread: HeldThread
    status: bytes
    code: Code
    options: int


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
        options = stopping.OPTIONS
        try:
            status = thread.status or procfs.read(pid, f"task/{thread.tid}/status")
            if b"\nSeccomp:\t" in status and b"\nSeccomp:\t0\n" not in status:
                options |= seccomp.PTRACE_O_SUSPEND_SECCOMP
            found = _obstacle(thread, options)
        except OSError:
            found = "it is ending"
        if found is None:
            return Loan(thread, status, code, options)
        reason = found
    return reason


def _obstacle(thread: HeldThread, options: int) -> str | None:
    if thread.stop_signal is not None:
        return "a signal is about to end it"
    if thread.buffer[CS] != CS_64BIT:
        return "it runs 32-bit code"
    if ptrace.dispatches_syscalls(thread.tid):
        return "it has its system calls dispatched to a signal handler"
    if options != stopping.OPTIONS and not _can_suspend(thread, options):
        return "a seccomp filter watches its system calls"
    return None


def _can_suspend(thread: HeldThread, options: int) -> bool:
    """Whether its filters can be suspended (CAP_SYS_ADMIN, and no filter of our own)."""
    if ptrace.request(ptrace.PTRACE_SETOPTIONS, thread.tid, 0, options) == -1:
        return False
    ptrace.call(ptrace.PTRACE_SETOPTIONS, thread.tid, 0, stopping.OPTIONS)
    return True
