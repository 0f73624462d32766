"""System calls with timeouts: when they began."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target
from tests.state.reading import capture, every, numbers, one, settle, unsaved
from vcsimg.capture.state import State, StateReader
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.waits import Wait, Waits
from vcsimg.image.region import RegionMap
from vcsimg.image.sections.thread import Call
from vcsimg.image.snapshot import Process

CLOCK_NANOSLEEP, RESTART_SYSCALL, EPOLL_WAIT = 230, 219, 232
GRAIN = 50_000_000
"""Nanoseconds that the kernel's clocks may be apart at worst."""


def call_of(state: State, tid: int) -> Call:
    return one(next(thread for thread in state.threads if thread.tid == tid), Call)


def settled_capture(reader: StateReader) -> State:
    """A capture when the threads are back in their calls, to which a busy machine may not have let them come yet."""
    settle(reader.pid)
    return capture(reader)


def has_sched() -> bool:
    return Path("/proc/self/sched").exists()


def test_a_wait_is_counted_from_its_begin_however_often_it_is_interrupted(start: Callable[..., Target]) -> None:
    target = start("state_waits")
    epoller, poller, began = numbers(target)
    settle(target.pid)
    time.sleep(0.2)
    reader = StateReader(target.pid)
    first, second, third = (settled_capture(reader) for _ in range(3))

    for tid, usual, later in ((target.pid, CLOCK_NANOSLEEP, RESTART_SYSCALL), (epoller, EPOLL_WAIT, EPOLL_WAIT)):
        call = call_of(first, tid)
        assert (call.number, call.original) == (usual, None)
        assert call.began is not None
        if has_sched():
            assert began - GRAIN <= call.began < first.monotonic - 100_000_000
        for state in (second, third):
            again = call_of(state, tid)
            assert (again.number, again.began) == (later, call.began)
            assert again.original == (usual if later != usual else None)
    assert call_of(first, poller).began is None, "it has no timeout"
    assert unsaved(second) == {}


@pytest.mark.parametrize(("switches", "same"), [(0, False), (1, True), (2, True), (3, False)])
def test_a_wait_goes_on_when_the_thread_was_stopped_again_before_it_slept(switches: int, same: bool) -> None:
    """One voluntary context switch is the stop's; a second one when it got a CPU in between. More, or none: it is another wait."""
    registers = dict.fromkeys(("rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "rsp"), 1)
    registers |= {"orig_rax": EPOLL_WAIT, "rax": 2**64 - 514}
    waits = Waits()
    waits.remember(7, registers, Wait(EPOLL_WAIT, 1000, True), 10)
    assert waits.find(7, registers, 10 + switches, 5000) == Wait(EPOLL_WAIT, 1000 if same else 5000, True)


def test_a_thread_that_was_moved_in_its_sleep_has_not_slept_since_the_clock_began(tmp_path: Path) -> None:
    """Its se.exec_start is 0 then, as read of a real sleep(1) among programs that compute; the kernel does that when it likes."""
    files = {
        "syscall": "232 0x1 0x1 0x1 0x1 0x1 0x1 0x7ffdd00db0c8 0x7fa4bb027503\n",
        "sched": "se.exec_start                                :             0.000000\nnr_voluntary_switches                        :                    9\n",
        "stat": Path("/proc/self/stat").read_text(),
    }
    thread = tmp_path / "task" / "7"
    thread.mkdir(parents=True)
    for name, content in files.items():
        (thread / name).write_text(content)
    registers = dict.fromkeys(("rdi", "rsi", "rdx", "r10", "r8", "r9"), 1) | {"orig_rax": EPOLL_WAIT, "rax": 2**64 - 514}
    waits = Waits()
    waits.prepare(ProcDirectory(7, os.open(tmp_path, os.O_RDONLY)))
    assert waits.find(7, registers, 10, 10**18) == Wait(EPOLL_WAIT, 10**18, True)


def test_another_reader_goes_on_from_what_the_image_says(start: Callable[..., Target]) -> None:
    target = start("state_waits")
    numbers(target)
    settle(target.pid)
    first = capture(StateReader(target.pid))
    reader = StateReader(target.pid)
    reader.recall(Process(target.pid, 0, first.name, RegionMap(()), first.threads))
    second = settled_capture(reader)

    call = call_of(second, target.pid)
    assert (call.number, call.original, call.began) == (RESTART_SYSCALL, CLOCK_NANOSLEEP, call_of(first, target.pid).began)


def test_a_wait_of_unknown_age_is_named(start: Callable[..., Target]) -> None:
    target = start("state_waits")
    numbers(target)
    settle(target.pid)
    capture(StateReader(target.pid))
    state = settled_capture(StateReader(target.pid))

    assert call_of(state, target.pid) == Call(RESTART_SYSCALL, None, 516, None)
    assert "interrupted before" in unsaved(state)[f"thread {target.pid} timeout"]
    assert every(state.threads[0], Call)
