"""What threads have of their own."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import capture, every, numbers, one, read_state, settle, still_well, unsaved
from vcsimg.capture.state import StateReader
from vcsimg.image.sections.status import Credentials
from vcsimg.image.sections.thread import (
    Altstack,
    Call,
    Name,
    RobustList,
    Rseq,
    Scheduling,
    SignalMask,
    ThreadSettings,
    TidAddress,
)

SCHED_BATCH = 3
PAUSE, ERESTARTNOHAND = 34, 514


def test_a_thread_that_differs_from_the_main_thread(start: Callable[..., Target]) -> None:
    target = start("state_threads")
    tid, stack = numbers(target)
    state = read_state(target.pid)

    main, other = state.threads
    assert other.tid == tid
    assert one(other, Name).comm == "odd\n\\name"
    assert one(other, SignalMask).mask == 1 << signal.SIGALRM - 1
    assert one(other, ThreadSettings) == ThreadSettings(123456, signal.SIGUSR2)
    scheduling = one(other, Scheduling)
    assert (scheduling.policy, scheduling.nice, scheduling.affinity) == (SCHED_BATCH, 5, "0")
    assert one(main, Scheduling).nice == 0
    assert one(other, Altstack) == Altstack(stack, 65536, 0)
    assert one(other, Credentials).no_new_privs
    assert every(main, Credentials) == []
    assert "does not share" in unsaved(state)[f"thread {tid} current directory, root and umask"]
    still_well(target)


def test_what_the_c_library_registers_for_each_thread(start: Callable[..., Target]) -> None:
    target = start("state_threads")
    _tid, _ = numbers(target)
    main, other = read_state(target.pid).threads

    for thread in (main, other):
        assert one(thread, RobustList).length == 24
        assert one(thread, RobustList).head != 0
        assert one(thread, TidAddress).address != 0
    assert one(main, TidAddress).address != one(other, TidAddress).address
    for rseq in (*every(main, Rseq), *every(other, Rseq)):
        assert rseq.signature == 0x53053053


def test_the_system_call_that_a_stop_interrupts(start: Callable[..., Target]) -> None:
    target = start("state_threads")
    numbers(target)
    _, other = read_state(target.pid).threads

    assert one(other, Call) == Call(PAUSE, None, ERESTARTNOHAND, None)
    assert other.registers["orig_rax"] == PAUSE
    assert len(other.xsave) >= 576


def test_a_thread_that_ran_since_the_last_capture_is_asked_again(start: Callable[..., Target]) -> None:
    target = start("state_restless")
    numbers(target)
    reader = StateReader(target.pid)
    settle(target.pid)
    capture(reader), capture(reader)
    for _ in range(10):
        target.send("x")
        (stack,) = numbers(target)
        settle(target.pid)
        assert one(capture(reader).threads[1], Altstack).address == stack
        assert one(capture(reader).threads[1], Altstack).address == stack
