"""Holding a process: every thread stops, and is given back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target
from vcsimg.kernel.syscalls import NR
from vcsimg.process import hold

Start = Callable[..., Target]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_held_process_is_stopped_and_runs_on_afterwards(start: Start) -> None:
    target = start("proc_sleep")
    assert target.line() == "ready"
    with hold(target.pid) as held:
        assert [thread.tid for thread in held.threads] == [target.pid]
        assert state(target.pid) == "t"
    assert state(target.pid) in "RS"


def test_borrowed_system_call_runs_in_the_target(start: Start) -> None:
    target = start("proc_sleep")
    assert target.line() == "ready"
    with hold(target.pid) as held:
        before = held.threads[0].registers()
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
        assert held.threads[0].registers() == before
