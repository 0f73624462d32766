"""Signal handlers, and signals that wait."""

from __future__ import annotations

import signal
import struct
import time

from vcsimg.image.sections.item import select
from vcsimg.image.sections.signals import Handler
from vcsimg.image.sections.thread import Dequeued, Pending
from vcsimg.image.sections.timers import PosixTimer
from vcsimg.image.snapshot import Process
from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import Call, words
from vcsimg.restore.skeleton import Skeleton

_SIGSET_SIZE = 8
_SIGINFO = struct.Struct("<iiiiii")
_SI_TIMER = -2
_TIMER_ID = 16
"""Where si_timerid stands in siginfo_t."""
_FORESEEABLE = frozenset((time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME))
_FIXED = (signal.SIGKILL, signal.SIGSTOP)


def restore_handlers(skeleton: Skeleton) -> None:
    """Raises RestoreError. SIGTRAP's is restored by the last step: the skeleton needs it until then."""
    remote = skeleton.main
    wanted = {handler.signal: handler for handler in select(skeleton.process.section("signals"), Handler)}
    nothing = remote.put(bytes(32))
    calls: list[Call] = []
    for number in range(1, signal.NSIG):
        if number in _FIXED or number == signal.SIGTRAP:
            continue
        at = remote.put(_action(wanted[number])) if number in wanted else nothing
        calls.append((NR["rt_sigaction"], (number, at, 0, _SIGSET_SIZE)))
    remote.all(calls, "signal handlers")
    remote.clear()


def trap_handler(skeleton: Skeleton) -> bytes | None:
    """struct kernel_sigaction for SIGTRAP, when it has not the default action."""
    for handler in select(skeleton.process.section("signals"), Handler):
        if handler.signal == signal.SIGTRAP:
            return _action(handler)
    return None


def _action(handler: Handler) -> bytes:
    return words((handler.action, handler.flags, handler.restorer, handler.mask))


def queue_signals(skeleton: Skeleton) -> None:
    """All that waits, for the process and for each thread; all signals are blocked until the threads are let go. Raises RestoreError."""
    process = skeleton.process
    remote = skeleton.main
    calls: list[Call] = []
    for pending in select(process.section("signals"), Pending):
        if pending.signal == signal.SIGTRAP or timer_of(process, pending) is not None:
            continue  # sent again by the timer itself; SIGTRAP at last, since it would stop the skeleton
        calls.append((NR["rt_sigqueueinfo"], (skeleton.pid, pending.signal, remote.put(_info(pending)))))
    remote.all(calls, "pending signals")
    for thread in process.threads:
        # Only a thread itself may send itself what seems to come from elsewhere (kernel/signal.c, do_rt_tgsigqueueinfo).
        remote = skeleton.threads[thread.tid]
        calls = []
        waiting: list[Pending | Dequeued] = [*select(thread.records, Dequeued), *select(thread.records, Pending)]
        for one in waiting:
            if one.signal not in (*_FIXED, signal.SIGTRAP) and timer_of(process, one) is None:
                args = (skeleton.pid, thread.tid, one.signal, remote.put(_info(one)))
                calls.append((NR["rt_tgsigqueueinfo"], args))
        remote.all(calls, "pending signals")
        remote.clear()


def queue_traps(skeleton: Skeleton, notes: list[str]) -> None:
    """SIGTRAP that waits, when all have their masks."""
    waiting = [(skeleton.tid, select(skeleton.process.section("signals"), Pending))]
    waiting += [(skeleton.threads[thread.tid].tid, select(thread.records, Pending)) for thread in skeleton.process.threads]
    for tid, pending in waiting:
        if any(one.signal == signal.SIGTRAP for one in pending):
            call(NR["tgkill"], skeleton.tid, tid, signal.SIGTRAP)
            notes.append(f"process {skeleton.pid}: the SIGTRAP that waits says that it comes from elsewhere")


def timer_of(process: Process, pending: Pending | Dequeued) -> PosixTimer | None:
    """The POSIX timer whose signal it is, if the timer can send it again."""
    if pending.info is None or pending.code != _SI_TIMER:
        return None
    (number,) = struct.unpack_from("<i", pending.info, _TIMER_ID)
    timers = select(process.section("timers"), PosixTimer)
    return next((timer for timer in timers if timer.id == number and timer.clock in _FORESEEABLE), None)


def _info(pending: Pending | Dequeued) -> bytes:
    if pending.info is not None:
        return pending.info[:128].ljust(128, b"\0")
    return _SIGINFO.pack(pending.signal, 0, 0, 0, 0, 0).ljust(128, b"\0")
