"""Programs that watch themselves do not notice that they are held."""

from __future__ import annotations

import random
import time

import pytest

from tests.conftest import Target
from tests.process.helpers import Start, ready, tracers
from vcsimg.kernel.syscalls import NR
from vcsimg.process import WaitMemory, hold

ENDED_BY_TIME = (
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "sigtimedwait", "semtimedop", "io_getevents", "io_pgetevents", "recv", "read",
    "send", "accept", "poll", "ppoll", "select", "nanosleep", "clock_nanosleep", "futex", "timerfd", "waitpid",
)  # fmt: skip
ENDED_BY_EVENT = (
    "pause", "sigsuspend", "epoll_signal", "epoll_ignored", "semop", "msgrcv", "pipe", "epoll_event", "flock", "sigwaitinfo", "mutex",
)  # fmt: skip


def hold_often(target: Target, times: int, waits: WaitMemory | None = None, *, borrow: bool = False) -> None:
    """Hold a process again and again, 1 ms apart on average, and borrow the thread that is not the main one."""
    for _ in range(times):
        with hold(target.pid, waits=waits) as held:
            if borrow:
                with held.borrow(held.threads[-1]) as borrowed:
                    borrowed.batch([(NR["getpid"], ())] * 2)
        time.sleep(random.random() * 0.002)


def rounds(target: Target) -> int:
    """How many waits of proc_waits ended as they should; fails if one did not."""
    target.send("\n")
    answer = target.line()
    assert answer.startswith("done "), answer
    return int(answer.removeprefix("done "))


@pytest.mark.parametrize("borrow", [False, True], ids=["held", "borrowed"])
@pytest.mark.parametrize("call", [*ENDED_BY_TIME, *ENDED_BY_EVENT])
def test_wait_ends_as_it_should_however_often_it_is_interrupted(start: Start, call: str, borrow: bool) -> None:
    target = ready(start("proc_waits", call))
    hold_often(target, 150, WaitMemory(), borrow=borrow)
    # Held every 2 ms, waits of 4 ms come to an end. How many do is up to the processor's other work.
    assert rounds(target)
    assert tracers(target.pid) <= {0}


def test_wait_that_is_started_again_and_again_without_memory_gives_no_eintr(start: Start) -> None:
    target = ready(start("proc_waits", "epoll_wait"))
    hold_often(target, 150)
    rounds(target)


def test_waits_that_events_end_are_not_ended_by_the_memory_of_others(start: Start) -> None:
    """proc_busy_waits gets an event every millisecond, and waits at most 20 ms for one: no wait ever takes that long."""
    target = ready(start("proc_busy_waits"))
    hold_often(target, 300, WaitMemory())
    target.send("\n")
    answer = target.line().split()
    assert answer[0] == "done"
    assert int(answer[1]) > 100


def test_event_during_a_hold_begins_a_new_wait(start: Start) -> None:
    """What comes while the process is held makes the wait return at once; the next one looks the same, and is not the same."""
    target = ready(start("proc_prompt"))
    waits = WaitMemory()
    for _ in range(8):
        time.sleep(0.05)
        with hold(target.pid, waits=waits):
            target.send("x")
    target.send("e")
    assert target.line() == "end 9"


@pytest.mark.parametrize("borrow", [False, True], ids=["held", "borrowed"])
def test_every_signal_is_handled_once_and_in_order(start: Start, borrow: bool) -> None:
    target = ready(start("proc_signals"))
    for _ in range(250):
        with hold(target.pid) as held:
            if borrow:
                for thread in held.threads:
                    with held.borrow(thread) as borrowed:
                        borrowed.batch([(NR["getpid"], ())] * 2)
        time.sleep(random.random() * 0.001)
    target.send("\n")
    answer = target.line()
    assert answer.startswith("done"), answer
    assert int(answer.split()[1]) > 100


@pytest.mark.parametrize("borrow", [False, True], ids=["held", "borrowed"])
def test_restartable_sequence_is_not_entered_in_the_middle(start: Start, borrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
    target = ready(start("proc_rseq"))
    for _ in range(250):
        with hold(target.pid) as held:
            if borrow:
                for thread in held.threads[1:]:
                    with held.borrow(thread) as borrowed:
                        borrowed.syscall(NR["getpid"])
        time.sleep(random.random() * 0.001)
    target.send("\n")
    answer = target.line()
    if answer == "no rseq":
        pytest.skip("this kernel has no restartable sequences")
    assert answer.startswith("done"), answer


@pytest.mark.parametrize("mode", ["busy", "sleep", "read"])
def test_thread_keeps_its_whole_state(start: Start, mode: str) -> None:
    target = ready(start("proc_steady", mode))
    target.send("\n")
    assert target.line() == "ok 0 more mappings"
    for _ in range(5):
        hold_often(target, 20, borrow=True)
        target.send("\n")
        assert target.line() == "ok 0 more mappings"
