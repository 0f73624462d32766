"""Interval timers and POSIX timers."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import every, numbers, one, read_state, still_well
from vcsimg.image.sections.timers import IntervalTimer, PosixTimer


def test_interval_timers(start: Callable[..., Target]) -> None:
    target = start("state_timers")
    numbers(target)
    state = read_state(target.pid)

    real = one(state, IntervalTimer, which="real")
    assert 3_000_000_000 < real.remaining <= 4_000_000_000
    assert real.interval == 3_000_021
    assert one(state, IntervalTimer, which="prof").interval == 0
    assert len(every(state, IntervalTimer)) == 2
    still_well(target)


def test_posix_timers(start: Callable[..., Target]) -> None:
    target = start("state_timers")
    (signal,) = numbers(target)
    state = read_state(target.pid)

    armed, idle = every(state, PosixTimer)
    assert (armed.clock, armed.notify, armed.signal, armed.value, armed.target) == (1, "signal", signal, 0x77, None)
    assert armed.remaining is not None
    assert 4_000_000_000_000 < armed.remaining <= 5_000_000_000_000
    assert armed.interval == 250
    assert (idle.clock, idle.target, idle.remaining, idle.overrun) == (0, target.pid, 0, 0)
    still_well(target)
