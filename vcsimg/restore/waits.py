"""Interrupted system calls with a timeout: they go on with the time that was left.

nanosleep, clock_nanosleep, poll and futex are continued by the kernel from what it has noted of them (struct restart_block). So that it has the right
note again, the thread makes the call anew with the time that is left, is interrupted at once, and is then given its old registers. The
other calls are begun again by the kernel from their arguments: there, the timeout among these is replaced.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

from vcsimg.image.sections.item import select
from vcsimg.image.sections.thread import Call, Dequeued, Pending, SignalMask
from vcsimg.image.snapshot import Thread
from vcsimg.kernel import ptrace
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ERESTART_RESTARTBLOCK, NO_SYSTEM_CALL, RAX, SYSCALL, WORD, signed
from vcsimg.restore.remote import Remote, register_words
from vcsimg.restore.skeleton import Skeleton

_BILLION, _MILLION = 1_000_000_000, 1_000_000
_TIMESPEC = struct.Struct("<qq")
_BELOW = 512
"""Bytes below the stack pointer where nothing is kept: beyond the red zone of 128 bytes."""


@dataclass(frozen=True)
class _Timeout:
    """Which argument says how long, and whether as a pointer to struct timespec (else in milliseconds)."""

    register: str
    pointer: bool


_CONTINUED = {
    NR["nanosleep"]: _Timeout("rdi", True),
    NR["clock_nanosleep"]: _Timeout("rdx", True),
    NR["futex"]: _Timeout("r10", True),
    NR["poll"]: _Timeout("rdx", False),
}
_BEGUN_AGAIN = {
    NR["epoll_wait"]: _Timeout("r10", False),
    NR["epoll_pwait"]: _Timeout("r10", False),
    NR["epoll_pwait2"]: _Timeout("r10", True),
    NR["rt_sigtimedwait"]: _Timeout("rdx", True),
    NR["semtimedop"]: _Timeout("r10", True),
    NR["io_getevents"]: _Timeout("r8", True),
    NR["io_pgetevents"]: _Timeout("r8", True),
}


def _call(thread: Thread) -> tuple[int, int] | None:
    """The call that the thread was in, and when it began."""
    for call in select(thread.records, Call):
        number = call.original if call.number == NR["restart_syscall"] else call.number
        if number is not None and call.began is not None:
            return number, call.began
    return None


def arm(skeleton: Skeleton, thread: Thread, captured: int) -> None:
    """Let the kernel note how a wait goes on; `captured`: when the image was made, in nanoseconds of the CLOCK_MONOTONIC of then. The thread
    must be able to make system calls, all signals blocked; it is at rest afterwards."""
    found = _call(thread)
    if found is None or found[0] not in _CONTINUED or WORD - thread.registers["rax"] != ERESTART_RESTARTBLOCK:
        return
    number, began = found
    remote = skeleton.threads[thread.tid]
    instruction = thread.registers["rip"] - len(SYSCALL)
    if os.pread(skeleton.memory, len(SYSCALL), instruction) != SYSCALL:
        return
    timeout = _CONTINUED[number]
    left = _left(skeleton, thread, timeout, captured - began)
    if left is None:
        return
    values = dict(thread.registers)
    values[timeout.register] = remote.put(_TIMESPEC.pack(*divmod(left, _BILLION))) if timeout.pointer else -(-left // _MILLION)
    values.update(rip=instruction, rax=number, orig_rax=NO_SYSTEM_CALL)
    skeleton.waits[thread.tid] = _interrupted(remote, values)
    remote.clear()


def _interrupted(remote: Remote, values: dict[str, int]) -> int:
    """The result of a call that is interrupted as soon as it waits."""
    remote.store(register_words(values))
    remote.resume(ptrace.PTRACE_SYSCALL)
    ptrace.call(ptrace.PTRACE_INTERRUPT, remote.tid, 0, 0)
    remote.resume(ptrace.PTRACE_SYSCALL)
    result = signed(remote.fetch()[RAX])
    # Its stop at the end of the call has used up the interrupt.
    remote.come_to_rest()
    return result


def _left(skeleton: Skeleton, thread: Thread, timeout: _Timeout, passed: int) -> int | None:
    """Nanoseconds, at least one."""
    value = thread.registers[timeout.register]
    if timeout.pointer:
        try:
            seconds, nanoseconds = _TIMESPEC.unpack(os.pread(skeleton.memory, _TIMESPEC.size, value))
        except (OSError, OverflowError, struct.error):
            return None
        whole = seconds * _BILLION + nanoseconds
    else:
        whole = ctypes.c_int32(value).value * _MILLION
    return max(1, min(whole, whole - passed)) if whole >= 0 else None


def registers(skeleton: Skeleton, thread: Thread, values: dict[str, int], captured: int) -> bool:
    """Change the registers that a thread goes on with, if it was in such a wait. False: it was not."""
    result = skeleton.waits.get(thread.tid)
    found = _call(thread)
    if result is not None and found is not None:
        if result == -ERESTART_RESTARTBLOCK:
            values["orig_rax"] = found[0]
        else:
            # It has not waited: what it would have waited for was there, or the time was over.
            values.update(rax=result % WORD, orig_rax=NO_SYSTEM_CALL)
        return True
    if found is None or found[0] not in _BEGUN_AGAIN or _signal_waits(skeleton, thread):
        return False
    number, began = found
    timeout = _BEGUN_AGAIN[number]
    left = _left(skeleton, thread, timeout, captured - began)
    if left is None:
        return False
    if timeout.pointer:
        scratch = (values["rsp"] - _BELOW) & ~15
        try:
            os.pwrite(skeleton.memory, _TIMESPEC.pack(*divmod(left, _BILLION)), scratch)
        except (OSError, OverflowError):
            return False
        values[timeout.register] = scratch
    else:
        values[timeout.register] = -(-left // _MILLION)
    values.update(rip=values["rip"] - len(SYSCALL), rax=number, orig_rax=NO_SYSTEM_CALL)
    return True


def _signal_waits(skeleton: Skeleton, thread: Thread) -> bool:
    """Whether a signal is about to be delivered: then the kernel decides whether the call begins again."""
    mask = next((signals.mask for signals in select(thread.records, SignalMask)), 0)
    waiting: list[Pending | Dequeued] = [
        *select(skeleton.process.section("signals"), Pending),
        *select(thread.records, Pending),
        *select(thread.records, Dequeued),
    ]
    return any(not mask >> one.signal - 1 & 1 for one in waiting)
