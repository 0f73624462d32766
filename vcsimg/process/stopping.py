"""Stopping threads with PTRACE_SEIZE and PTRACE_INTERRUPT, and letting them go.

A thread answers an interrupt in one of these ways (ptrace(2), "Stopped states"):

    PTRACE_EVENT_STOP, SIGTRAP      the plain stop
    PTRACE_EVENT_STOP, a stop signal  it is, or becomes, part of a group-stop (SIGSTOP, Ctrl-Z)
    signal-delivery-stop            a signal got ahead of the interrupt
    PTRACE_EVENT_EXEC               it had called exec meanwhile
    exit                            it had ended meanwhile

The state of a stopped thread is never collected with wait: a collected signal-delivery-stop has forgotten its signal, and if vcsimg
were killed then, the signal would be lost. So waitid is always called with WNOWAIT, except for threads that have ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

from vcsimg.errors import StopTimeout
from vcsimg.kernel import procfs, ptrace
from vcsimg.kernel.x86_64 import ORIG_RAX, RAX
from vcsimg.process.refusal import refusal
from vcsimg.process.thread import HeldThread
from vcsimg.process.waits import INTERRUPTED, RESTART, RESTARTABLE

_WALL = 0x40000000
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL
_REAP = os.WEXITED | os.WNOHANG | _WALL
_OPTIONS = ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_TRACEEXEC
_SPINS = 200
_SI = struct.Struct("<iii")  # si_signo, si_errno, si_code

SYSCALL_STOP = 0x85
"""si_code in a stop at the entry or exit of a system call: SIGTRAP | 0x80 (PTRACE_O_TRACESYSGOOD)."""


class ExecHappened(Exception):
    """A thread called exec while its process was being stopped."""


def seize(thread: HeldThread) -> bool:
    """Attach to a thread and ask it to stop; false if it has ended. Raises NotPermitted and its like."""
    if ptrace.request(ptrace.PTRACE_SEIZE, thread.tid, 0, _OPTIONS) == -1:
        error = ctypes.get_errno()
        if error == errno.ESRCH or ended(thread):
            return False
        raise refusal(thread.pid)
    ptrace.request(ptrace.PTRACE_INTERRUPT, thread.tid, 0, 0)
    return True


def ended(thread: HeldThread) -> bool:
    """Whether a thread is dead, or a zombie, though its process may live."""
    try:
        return procfs.stat(thread.pid, thread.tid).state in "ZX"
    except OSError:
        return True


def await_stop(thread: HeldThread, deadline: float, started: float) -> bool:
    """Wait until a thread is stopped, its registers read; false if it has ended. Raises StopTimeout, ExecHappened."""
    spins = 0
    while not thread.fetch():
        spins += 1
        if is_dead(thread):
            return False
        if spins < _SPINS:
            os.sched_yield()
            continue
        now = time.monotonic()
        if now > deadline:
            raise StopTimeout(thread.pid, thread.tid, now - started, _state(thread))
        time.sleep(min(0.002, 0.00005 * (spins - _SPINS + 1)))
    return True


def is_dead(thread: HeldThread) -> bool:
    """Whether a thread that we trace has ended. Raises ChildProcessError if we do not trace it."""
    # Of a traced thread, stops are reported too, without being asked for (kernel/exit.c, wait_task_stopped).
    found = os.waitid(os.P_PID, thread.tid, _LOOK)
    return found is not None and found.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED)


def _state(thread: HeldThread) -> str:
    try:
        letter = procfs.stat(thread.pid, thread.tid).state
    except OSError:
        return "it has just ended"
    return {"D": "uninterruptible sleep", "R": "running in the kernel"}.get(letter, f"state {letter}")


def stop_code(thread: HeldThread) -> tuple[int, int]:
    """(si_signo, si_code) of the stop that the thread is in."""
    info = ptrace.siginfo(thread.tid)
    signo, _, code = _SI.unpack_from(info)
    return signo, code


def settle(thread: HeldThread) -> None:
    """Bring a thread that has answered an interrupt into a stop in which nothing is half done."""
    buffer = thread.buffer
    if buffer[RAX] == INTERRUPTED and buffer[ORIG_RAX] in RESTARTABLE:
        buffer[RAX] = RESTART
        thread.store(buffer)
    info = ptrace.siginfo(thread.tid)
    code = _SI.unpack_from(info)[2]
    if code >> 8 == ptrace.PTRACE_EVENT_EXEC:
        raise ExecHappened
    if code >> 8 == ptrace.PTRACE_EVENT_STOP:
        thread.group_stopped = code & 0xFF != 5
        return
    thread.stop_signal = info


def release(thread: HeldThread) -> None:
    """Let a thread go on as it was, with the signal it was stopped for. A thread that has ended is reaped."""
    signal = _SI.unpack_from(thread.stop_signal)[0] if thread.stop_signal is not None else 0
    if ptrace.request(ptrace.PTRACE_DETACH, thread.tid, 0, signal) == 0:
        return
    _reap_or_stop(thread, signal)


def _reap_or_stop(thread: HeldThread, signal: int) -> None:
    """A thread that cannot be detached from has ended, is not ours, or is ours and runs: then it must be stopped for it."""
    while True:
        try:
            if is_dead(thread):
                reap(thread)
                return
        except ChildProcessError:
            return
        if ptrace.request(ptrace.PTRACE_INTERRUPT, thread.tid, 0, 0) == -1:
            continue
        if ptrace.request(ptrace.PTRACE_DETACH, thread.tid, 0, signal) == 0:
            return
        time.sleep(0.0005)


def reap(thread: HeldThread) -> None:
    """Collect a thread that has ended, so that its real parent sees it end. The main thread of our own child is left to whoever
    waits for that child."""
    if thread.tid == thread.pid and procfs.stat(thread.pid).ppid == os.getpid():
        return
    try:
        os.waitid(os.P_PID, thread.tid, _REAP)
    except ChildProcessError:
        pass
