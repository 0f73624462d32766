"""Section `timers`: interval timers, POSIX timers. (Timer descriptors are read with the other descriptors.)"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.timers import IntervalTimer, PosixTimer, ProcessorTime
from vcsimg.kernel.syscalls import NR

_INTERVAL_TIMERS = ("real", "virtual", "prof")
"""By their numbers in getitimer(2)."""
_ITIMERVAL = struct.Struct("<qqqq")
"""struct itimerval and struct itimerspec: interval, then value, each in seconds and in µs or ns."""
_POSIX = re.compile(rb"ID: (\d+)\nsignal: (\d+)/([0-9a-fx]+|\(null\))\nnotify: (\w+)/(tid|pid)\.(-?\d+)\nClockID: (-?\d+)\n")
"""A timer in /proc/PID/timers, proc(5)."""


_CLOCKS_OF_THREADS = frozenset((-2, -3, -4))
"""Of the thread that makes the timer: CLOCK_THREAD_CPUTIME_ID, as the kernel says it (linux/posix-timers.h, MAKE_THREAD_CPUCLOCK(0, …))."""
_TICKS = os.sysconf("SC_CLK_TCK")
_USED = slice(11, 15)
"""Words of stat behind the name: utime, stime, cutime, cstime, in clock ticks."""


def processor_time(stat: bytes) -> tuple[int, int]:
    """Whole seconds of processor time, of a process itself and of its children that it has waited for."""
    user, system, children_user, children_system = map(int, stat.rpartition(b")")[2].split()[_USED])
    return (user + system) // _TICKS, (children_user + children_system) // _TICKS


@dataclass(slots=True)
class _Posix:
    found: re.Match[bytes]
    time: Buffer
    gettime: Call
    overrun: Call


class TimersReader:
    """Reads it for one process."""

    def ask(self, ask: Borrowings) -> None:
        """Note what only the process itself can tell."""
        self._interval: list[tuple[str, Call, Buffer]] = []
        for number, which in enumerate(_INTERVAL_TIMERS):
            buffer = ask.buffer(_ITIMERVAL.size)
            self._interval.append((which, ask.call(NR["getitimer"], number, buffer), buffer))

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        ask = moment.borrowings
        self._text = moment.proc.try_read("timers")
        self._stat = moment.stat
        self._several_threads = len(moment.held.threads) > 1
        self._posix: list[_Posix] = []
        for found in _POSIX.finditer(self._text or b""):
            identifier = int(found[1])
            buffer = ask.buffer(_ITIMERVAL.size)
            gettime = ask.call(NR["timer_gettime"], identifier, buffer)
            self._posix.append(_Posix(found, buffer, gettime, ask.call(NR["timer_getoverrun"], identifier)))

    def finish(self, report: Report) -> None:
        """Write the section."""
        for which, call, buffer in self._interval:
            if call.result != 0:
                report.unsaved("interval timers", "no system call could be borrowed to read them")
                continue
            seconds, micro, left, left_micro = _ITIMERVAL.unpack(buffer.data)
            remaining = left * 1_000_000 + left_micro
            if remaining:
                report.add("timers", IntervalTimer(which, remaining, seconds * 1_000_000 + micro))
        if self._text is None:
            report.unsaved("POSIX timers", "this kernel has no /proc/PID/timers")
        for timer in sorted(self._posix, key=lambda timer: int(timer.found[1])):
            report.add("timers", self._item(timer))
            if timer.gettime.result != 0:
                report.unsaved(f"POSIX timer {int(timer.found[1])}", "no system call could be borrowed to read its time")
            if self._several_threads and int(timer.found[7]) in _CLOCKS_OF_THREADS and timer.found[5] != b"tid":
                reason = "it counts the processor time of the thread that made it, and nobody tells which one that was"
                report.unsaved(f"POSIX timer {int(timer.found[1])} clock", reason)
        times = processor_time(self._stat)
        if any(times):
            report.add("timers", ProcessorTime(*times))

    def _item(self, timer: _Posix) -> PosixTimer:
        identifier, signal, value, notify, scope, target, clock = (word.decode() for word in timer.found.groups())
        known = timer.gettime.result == 0
        seconds, nano, left, left_nano = _ITIMERVAL.unpack(timer.time.data) if known else (0, 0, 0, 0)
        overrun = timer.overrun.result
        return PosixTimer(
            id=int(identifier),
            clock=int(clock),
            notify=notify,
            signal=int(signal),
            value=int(value, 16) if value != "(null)" else 0,
            target=int(target) if scope == "tid" else None,
            remaining=left * 1_000_000_000 + left_nano if known else None,
            interval=seconds * 1_000_000_000 + nano if known else None,
            overrun=overrun if overrun is not None and overrun >= 0 else None,
        )
