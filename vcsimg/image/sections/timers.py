"""Section `timers`. It is the one section whose text changes from capture to capture although nothing was done:
remaining times are those of the instant of the capture."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item
from vcsimg.image.sections.names import Clock, SignalNumber, TimerfdFlags


@dataclass(frozen=True, slots=True)
class IntervalTimer(Item, kind="interval_timer"):
    """An armed interval timer, getitimer(2): `which` real, virtual or prof; times in microseconds."""

    which: str
    remaining: int
    interval: int


@dataclass(frozen=True, slots=True)
class PosixTimer(Item, kind="posix_timer"):
    """timer_create(2). `notify`: signal, none or thread; `value`: sigev_value; `target`: the thread of SIGEV_THREAD_ID.

    Times in nanoseconds; remaining 0: not armed. `overrun`: expirations beyond the one whose signal was delivered last.
    """

    id: int
    clock: Clock
    notify: str
    signal: SignalNumber
    value: Hex
    target: int | None
    remaining: int | None
    interval: int | None
    overrun: int | None


@dataclass(frozen=True, slots=True)
class TimerDescriptor(Item, kind="timerfd"):
    """timerfd_create(2). `ticks`: expirations not read yet. Times in nanoseconds; remaining 0: not armed."""

    fd: int
    clock: Clock
    flags: TimerfdFlags
    ticks: int
    remaining: int
    interval: int


@dataclass(frozen=True, slots=True)
class ProcessorTime(Item, kind="processor_time"):
    """Whole seconds of processor time that it has used, of all its threads, and of children that it has waited for; if there is one."""

    own: int
    children: int
