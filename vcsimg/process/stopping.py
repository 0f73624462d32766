"""Stopping threads with PTRACE_SEIZE and PTRACE_INTERRUPT, and letting them go.

A thread answers an interrupt in one of these ways (ptrace(2), "Stopped states"):

    PTRACE_EVENT_STOP with SIGTRAP          the plain stop
    PTRACE_EVENT_STOP with another signal   it is, or becomes, part of a group-stop (SIGSTOP, Ctrl-Z)
    signal-delivery-stop                    a signal got ahead of the interrupt
    PTRACE_EVENT_EXEC                       it had called exec meanwhile
    exit                                    it had ended meanwhile

The state of a stopped thread is never collected with wait: the kernel then forgets the signal of a signal-delivery-stop, and it
would be lost if vcsimg were killed (kernel/exit.c, wait_task_stopped clears exit_code). Whether a thread is stopped is seen from
the answer to PTRACE_GETREGS, and why from PTRACE_GETSIGINFO; waitid is called for threads that have ended, with WNOWAIT until
they are given up.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import struct
import time
from contextlib import suppress

from vcsimg.errors import StopTimeout
from vcsimg.kernel import procfs, ptrace
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ORIG_RAX, RAX
from vcsimg.process.refusal import refusal
from vcsimg.process.thread import HeldThread
from vcsimg.process.waits import INTERRUPTED, RESTART, RESTARTABLE

OPTIONS = ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_TRACEEXEC
"""What every held thread is seized with."""

SYSCALL_STOP = 0x85
"""si_code in a stop at the entry or exit of a system call: SIGTRAP | 0x80 (PTRACE_O_TRACESYSGOOD)."""

_WALL = 0x40000000
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL
_COLLECT = os.WSTOPPED | os.WNOHANG | _WALL
_REAP = os.WEXITED | os.WNOHANG | _WALL
_SIGINFO_HEAD = struct.Struct("<iii")  # si_signo, si_errno, si_code
_CLONE_VFORK = 0x4000

_EAGER = 200
"""How often to look for the stop, yielding the CPU in between, before sleeping: about 200 µs."""

_EXEC_RACES = 5

# Signals whose default action is not to end the process (man 7 signal).
_HARMLESS = {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


class Disturbed(Exception):
    """A thread called exec, or the process was killed, while it was being stopped."""


def seize(thread: HeldThread) -> bool:
    """Attach to a thread and ask it to stop; false if it has ended. Raises NotPermitted and its like, and Disturbed."""
    for _ in range(_EXEC_RACES):
        if ptrace.request(ptrace.PTRACE_SEIZE, thread.tid, 0, OPTIONS) == 0:
            break
        if ctypes.get_errno() == errno.ESRCH or is_over(thread):
            return False
        # Not permitted; or the thread was a zombie then, and in the place of this main thread is now another one, by exec.
    else:
        if is_ours(thread.tid):
            # Another thread that we hold, or were about to let go, has called exec since: it is the main one now.
            raise Disturbed
        raise refusal(thread.pid)
    ptrace.request(ptrace.PTRACE_INTERRUPT, thread.tid, 0, 0)
    return True


def is_ours(tid: int) -> bool:
    """Whether this OS thread traces a thread. If so, it is asked to stop."""
    # EIO: it is ours, and about to end.
    return ptrace.request(ptrace.PTRACE_INTERRUPT, tid, 0, 0) == 0 or ctypes.get_errno() == errno.EIO


def is_over(thread: HeldThread) -> bool:
    """Whether a thread is dead or a zombie, though its process may live."""
    try:
        return procfs.stat(thread.pid, thread.tid).state in "ZX"
    except OSError:
        return True


def is_dead(thread: HeldThread) -> bool:
    """Whether a thread that we trace has ended; also true if we do not trace it (any more)."""
    try:
        found = os.waitid(os.P_PID, thread.tid, _LOOK)
    except ChildProcessError:
        return True
    if found is None:
        return False
    # Stops of a traced thread are reported without being asked for (kernel/exit.c, wait_task_stopped).
    if found.si_code == os.CLD_TRAPPED and found.si_status >> 8 == ptrace.PTRACE_EVENT_EXEC:
        # After exec by another than the main thread, ptrace knows the thread, which is the main one now, only when this has been
        # collected (kernel/ptrace.c, looks_like_a_spurious_pid).
        os.waitid(os.P_PID, thread.tid, _COLLECT)
    return found.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED)


def await_stop(thread: HeldThread, deadline: float, started: float, patience: float = math.inf) -> bool:
    """Wait until a thread is stopped, and read its registers; false if it has ended. Raises StopTimeout after `deadline`, or after
    `patience` seconds, and says that `started` was the time when the stopping began (times on time.monotonic())."""
    looks = 0
    until = math.inf
    while not thread.fetch():
        if is_dead(thread):
            return False
        looks += 1
        if looks < _EAGER:
            os.sched_yield()
            continue
        now = time.monotonic()
        if looks == _EAGER:
            until = min(deadline, now + patience)
        if is_over(thread):
            return False  # a main thread, not reported as dead before all others have been reaped
        if not is_ours(thread.tid):
            return False  # another thread has called exec and is the main one now: a child of ours that we do not trace
        if now > until:
            raise StopTimeout(thread.pid, thread.tid, now - started, _why_not(thread))
        time.sleep(min(0.002, 0.00002 * (looks - _EAGER + 1)))
    return True


def _why_not(thread: HeldThread) -> str:
    """What a thread that does not stop is doing."""
    try:
        state = procfs.stat(thread.pid, thread.tid).state
        if procfs.status(thread.pid).get("CoreDumping") == "1":
            return "it is writing a core dump"
    except OSError:
        return "it has just ended"
    if state != "D":
        return {"R": "it runs inside the kernel"}.get(state, f"state {state}")
    child = vfork_child(thread)
    if child is not None:
        return f"it waits in vfork for its child, process {child}"
    return "uninterruptible sleep"


def vfork_child(thread: HeldThread) -> int | None:
    """The child that a thread waits for in vfork(2), or in a clone(2) that does the same; None if it is not in one."""
    try:
        words = procfs.read(thread.pid, f"task/{thread.tid}/syscall").split()
        number = int(words[0])
        if number == NR["clone3"]:
            with open(f"/proc/{thread.pid}/mem", "rb", buffering=0) as memory:
                flags = int.from_bytes(os.pread(memory.fileno(), 8, int(words[1], 16)), "little")
        else:
            flags = int(words[1], 16) if number == NR["clone"] else 0
        if number != NR["vfork"] and not flags & _CLONE_VFORK:
            return None
        children = procfs.read(thread.pid, f"task/{thread.tid}/children").split()
        return int(children[-1]) if children else None
    except (OSError, ValueError, IndexError):
        return None


def stop_code(thread: HeldThread) -> tuple[int, int]:
    """(si_signo, si_code) of the stop that the thread is in. Raises ProcessChanged when it is killed, which wakes it from any stop."""
    try:
        signo, _, code = _SIGINFO_HEAD.unpack_from(ptrace.siginfo(thread.tid))
    except OSError as error:
        thread.gone(error)
    return signo, code


def settle(thread: HeldThread) -> bool:
    """Bring a thread that has answered an interrupt to a stop in which nothing is half done; false if it must be awaited again, or has
    ended. Raises Disturbed.

    A signal that got ahead of the interrupt is delivered at once if that does not end the process: then the thread stands at the
    first instruction of the handler. One that will end it is kept in `stop_signal`: so the state just before death can be seen.
    """
    buffer = thread.buffer
    if buffer[RAX] == INTERRUPTED and buffer[ORIG_RAX] in RESTARTABLE:
        buffer[RAX] = RESTART
        if not thread.try_store():
            return False
    try:
        info = ptrace.siginfo(thread.tid)
    except ProcessLookupError:
        return False
    signo, _, code = _SIGINFO_HEAD.unpack_from(info)
    if code >> 8 == ptrace.PTRACE_EVENT_EXEC:
        raise Disturbed
    if code >> 8 == ptrace.PTRACE_EVENT_STOP:
        thread.group_stopped = signo != signal.SIGTRAP
        return True
    if code == SYSCALL_STOP:
        return True
    if _deadly(thread.pid, signo):
        thread.stop_signal = info
        return True
    # The interrupt comes first: with it pending, the thread stops again before it executes an instruction.
    ptrace.request(ptrace.PTRACE_INTERRUPT, thread.tid, 0, 0)
    ptrace.request(ptrace.PTRACE_CONT, thread.tid, 0, signo)
    return False


def _deadly(pid: int, signo: int) -> bool:
    """Whether a signal, when delivered, would end the process."""
    status = procfs.status(pid)
    handled = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    return not handled >> (signo - 1) & 1 and signo not in _HARMLESS


def let_go(thread: HeldThread, patience: float) -> bool:
    """Let a thread go on as it was, with the signal it was stopped for; one that has ended is reaped. False if it was seized, has not
    stopped yet, and does not within `patience` seconds: ptrace lets go of stopped threads only."""
    if try_let_go(thread):
        return True
    ptrace.request(ptrace.PTRACE_INTERRUPT, thread.tid, 0, 0)
    deadline = time.monotonic() + patience
    while not try_let_go(thread):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0002)
    return True


def try_let_go(thread: HeldThread) -> bool:
    """let_go(), without waiting. Also true of a thread that we do not trace."""
    signo = _SIGINFO_HEAD.unpack_from(thread.stop_signal)[0] if thread.stop_signal is not None else 0
    if ptrace.request(ptrace.PTRACE_DETACH, thread.tid, 0, signo) == 0:
        return True
    if is_dead(thread):
        reap(thread)
        return True
    return False


def reap(thread: HeldThread) -> None:
    """Collect a thread that has ended, so that its real parent sees it end. The main thread of our own child is left to whoever
    waits for that child."""
    with suppress(OSError):
        if thread.tid != thread.pid or procfs.stat(thread.pid).ppid != os.getpid():
            os.waitid(os.P_PID, thread.tid, _REAP)
