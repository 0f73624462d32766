"""Breaking a deadlock between us and a thread that calls exec.

In a process with several threads, exec first kills all others, and waits until they are reaped. Those that we trace are reaped by us
alone. But while exec is under way, PTRACE_SEIZE of another thread of the process waits for it to be over, and no signal gets us
out (kernel/ptrace.c, ptrace_attach: cred_guard_mutex, ERESTARTNOINTR). So a second thread of ours does the reaping, which any thread may.
It sleeps on a timer that is armed while threads are being seized, and in the ordinary case never wakes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR
from vcsimg.process import stopping
from vcsimg.process.interrupts import deferred
from vcsimg.process.thread import HeldThread

_CLOCK_MONOTONIC = 1
_PERIOD_NS = 50_000_000


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: interval, then first expiry; seconds and nanoseconds each."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("interval_s", "interval_ns", "first_s", "first_ns"))


_armed = _TimerSpec(0, _PERIOD_NS, 0, _PERIOD_NS)
_disarmed = _TimerSpec()


class _Watchdog:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._timer = call(NR["timerfd_create"], _CLOCK_MONOTONIC, os.O_CLOEXEC)
        self._watched: Iterable[HeldThread] = ()
        threading.Thread(target=self._run, name="vcsimg-watchdog", daemon=True).start()

    def arm(self, threads: Iterable[HeldThread]) -> None:
        self._watched = threads
        call(NR["timerfd_settime"], self._timer, 0, ctypes.addressof(_armed))

    def disarm(self) -> None:
        call(NR["timerfd_settime"], self._timer, 0, ctypes.addressof(_disarmed))
        self._watched = ()

    def _run(self) -> None:
        while os.read(self._timer, 8):
            for thread in list(self._watched):
                # Not the main thread: exec takes its place without waiting for us.
                if thread.tid != thread.pid and stopping.is_dead(thread):
                    stopping.reap(thread)


_watchdog: _Watchdog | None = None


@contextmanager
def watching(threads: Iterable[HeldThread]) -> Iterator[None]:
    """While the `with` block seizes threads of a process that has several; `threads`: those seized so far, may grow meanwhile."""
    global _watchdog
    with deferred():
        if _watchdog is None or _watchdog.owner != os.getpid():
            _watchdog = _Watchdog()
    _watchdog.arm(threads)
    try:
        yield
    finally:
        _watchdog.disarm()
