"""Interval timers and POSIX timers: they run again from the time that they had left."""

from __future__ import annotations

import struct
import time

from vcsimg.errors import RestoreError
from vcsimg.image.sections.item import select
from vcsimg.image.sections.thread import Dequeued, Pending
from vcsimg.image.sections.timers import IntervalTimer, PosixTimer
from vcsimg.kernel.prctl_set import TIMER_CREATE_RESTORE_IDS
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import Call, failed
from vcsimg.restore.signals import timer_of
from vcsimg.restore.skeleton import Skeleton

_WHICH = {"real": 0, "virtual": 1, "prof": 2}
_NOTIFY = {"signal": 0, "none": 1, "thread": 2}
_THREAD_ID = 4
_TIMER_ABSTIME = 1
_MILLION, _BILLION = 1_000_000, 1_000_000_000
_ON, _OFF = 1, 0
_TRIES = 100_000


def restore_timers(skeleton: Skeleton) -> None:
    """Late: they run from now on. Raises RestoreError."""
    remote = skeleton.main
    section = skeleton.process.section("timers")
    posix = sorted(select(section, PosixTimer), key=lambda timer: timer.id)
    if posix:
        _create(skeleton, posix)
    calls: list[Call] = []
    due = _due(skeleton)
    for timer in posix:
        if timer.id in due:
            # It expired when the interval that runs now began, and has not been waited for since: its signal waits, and counts.
            period = timer.interval or 0
            first = time.clock_gettime_ns(timer.clock) + (timer.remaining or 0) - period if period else 1
            at = remote.put(_spec(max(first, 1), period, _BILLION))
            calls.append((NR["timer_settime"], (timer.id, _TIMER_ABSTIME, at, 0)))
        elif timer.remaining:
            at = remote.put(_spec(timer.remaining, timer.interval or 0, _BILLION))
            calls.append((NR["timer_settime"], (timer.id, 0, at, 0)))
    for interval in select(section, IntervalTimer):
        if interval.which not in _WHICH:
            raise RestoreError("interval timer", f"there is none called {interval.which!r}")
        at = remote.put(_spec(interval.remaining, interval.interval, _MILLION))
        calls.append((NR["setitimer"], (_WHICH[interval.which], at, 0)))
    remote.all(calls, "timers")
    remote.clear()


def _due(skeleton: Skeleton) -> set[int]:
    """Timers whose signals wait."""
    process = skeleton.process
    waiting: list[Pending | Dequeued] = [*select(process.section("signals"), Pending)]
    for thread in process.threads:
        waiting += [*select(thread.records, Dequeued), *select(thread.records, Pending)]
    return {timer.id for one in waiting if (timer := timer_of(process, one)) is not None}


def _create(skeleton: Skeleton, timers: list[PosixTimer]) -> None:
    """With their ids: a kernel since 6.15 can be told; before, ids count up from 0."""
    main = skeleton.main
    (result,) = main.batch([(NR["prctl"], (TIMER_CREATE_RESTORE_IDS, _ON, 0, 0, 0))])
    told = not failed(result)
    identifier = main.put(bytes(8))
    for timer in timers:
        event = main.put(_event(timer))
        # A clock of the thread that makes it is most likely that of the thread that is told of it.
        remote = skeleton.threads.get(timer.target or 0, main)
        for _ in range(_TRIES):
            main.write_word(identifier, timer.id)
            remote.all([(NR["timer_create"], (timer.clock, event, identifier))], f"POSIX timer {timer.id}")
            made = int.from_bytes(main.read(identifier, 4), "little")
            if made == timer.id:
                break
            main.call(NR["timer_delete"], made)
            if told or made > timer.id:
                raise RestoreError(f"POSIX timer {timer.id}", "it cannot be given its id")
        else:
            raise RestoreError(f"POSIX timer {timer.id}", "its id is too large")
    if told:
        main.call(NR["prctl"], TIMER_CREATE_RESTORE_IDS, _OFF, 0, 0, 0)


def _event(timer: PosixTimer) -> bytes:
    """struct sigevent."""
    if timer.notify not in _NOTIFY:
        raise RestoreError(f"POSIX timer {timer.id}", f"it cannot notify by {timer.notify!r}")
    notify = _NOTIFY[timer.notify] | (_THREAD_ID if timer.target else 0)
    return struct.pack("<Qiii", timer.value, timer.signal, notify, timer.target or 0).ljust(64, b"\0")


def _spec(remaining: int, interval: int, unit: int) -> bytes:
    """struct itimerspec or itimerval."""
    return struct.pack("<qqqq", *divmod(interval, unit), *divmod(remaining, unit))
