"""Processes that do not keep still: threads come and go, exec, vfork, the end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.process.helpers import Start, asleep, ready, state, tracers
from vcsimg.errors import ProcessChanged, ProcessError, StopTimeout
from vcsimg.kernel import ptrace
from vcsimg.kernel.syscalls import NR
from vcsimg.process import hold


def test_every_thread_of_a_storm_is_held(start: Start) -> None:
    target = ready(start("proc_storm", 4))
    for _ in range(30):
        with hold(target.pid) as held:
            listed = {int(tid) for tid in os.listdir(f"/proc/{target.pid}/task")}
            assert {thread.tid for thread in held.threads} == listed
            assert {state(target.pid, tid) for tid in listed} == {"t"}
            with held.borrow() as borrowed:
                assert borrowed.syscall(NR["getpid"]) == target.pid
            assert {int(tid) for tid in os.listdir(f"/proc/{target.pid}/task")} == listed
    target.send("\n")
    before = int(target.line())
    target.send("\n")
    assert int(target.line()) >= before > 0


@pytest.mark.parametrize("threads", [0, 1, 30])
def test_process_that_calls_exec_all_the_time_is_held_and_goes_on(start: Start, threads: int) -> None:
    target = ready(start("proc_exec", threads))
    for _ in range(60):
        with hold(target.pid) as held:
            assert {thread.tid for thread in held.threads} == {int(tid) for tid in os.listdir(f"/proc/{target.pid}/task")}
    started = Path(f"/proc/{target.pid}/stat").read_text().split()
    wait_for(lambda: Path(f"/proc/{target.pid}/stat").read_text().split() != started)
    assert target.process.poll() is None
    assert tracers(target.pid) == {0}


def test_process_in_vfork_is_named_and_left_alone(start: Start) -> None:
    target = start("proc_vfork")
    child = int(target.line().removeprefix("ready "))
    with pytest.raises(StopTimeout, match=f"vfork for its child, process {child}") as caught, hold(target.pid, timeout=60):
        pass
    assert caught.value.tid == target.pid
    assert caught.value.seconds < 30
    target.send("\n")
    assert target.line() == "over"
    wait_for(lambda: tracers(target.pid) == {0})
    with hold(target.pid) as held:
        assert len(held.threads) == 2


def test_vfork_that_ends_in_time_is_waited_for(start: Start) -> None:
    target = start("proc_vfork")
    target.line()
    timer = os.fork()
    if timer == 0:
        time.sleep(0.3)
        target.send("\n")
        os._exit(0)
    with hold(target.pid) as held:
        assert len(held.threads) == 2
    os.waitpid(timer, 0)
    assert target.line() == "over"


def test_process_that_ends_while_it_is_being_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = asleep(start("proc_threads", 3))
    request = ptrace.request

    def kill_after_seize(number: int, tid: int, address: object, data: object) -> int:
        result = int(request(number, tid, address, data))
        if number == ptrace.PTRACE_SEIZE:
            os.kill(target.pid, signal.SIGKILL)
        return result

    monkeypatch.setattr(ptrace, "request", kill_after_seize)
    with pytest.raises(ProcessChanged), hold(target.pid):
        pass
    assert target.process.wait(10) == -signal.SIGKILL


def test_processes_that_end_at_any_moment_give_a_typed_error_or_are_held(start: Start) -> None:
    for round_ in range(40):
        target = ready(start("proc_threads", 4))
        killer = os.fork()
        if killer == 0:
            time.sleep(round_ * 2e-5)
            os.kill(target.pid, signal.SIGKILL)
            os._exit(0)
        try:
            while True:
                with hold(target.pid) as held, held.borrow() as borrowed:
                    borrowed.batch([(NR["getpid"], ())])
        except ProcessError:
            pass
        os.waitpid(killer, 0)
        assert target.process.wait(10) == -signal.SIGKILL


def send_when_seized(monkeypatch: pytest.MonkeyPatch, pid: int, number: int) -> None:
    """Have a signal get ahead of the interrupt: it is sent between the two requests that stop a thread."""
    request = ptrace.request

    def with_signal(code: int, tid: int, address: object, data: object) -> int:
        result = int(request(code, tid, address, data))
        if code == ptrace.PTRACE_SEIZE:
            monkeypatch.setattr(ptrace, "request", request)
            os.kill(pid, number)
            wait_for(lambda: state(pid) == "t")
        return result

    monkeypatch.setattr(ptrace, "request", with_signal)


def test_signal_that_ends_the_process_is_kept_until_release(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = asleep(start("proc_sleep"))
    send_when_seized(monkeypatch, target.pid, signal.SIGTERM)
    with hold(target.pid) as held:
        info = held.threads[0].stop_signal
        assert info is not None
        assert int.from_bytes(info[:4], "little") == signal.SIGTERM
        assert int.from_bytes(info[16:20], "little") == os.getpid()
        assert held.can_borrow is not None
    assert target.process.wait(10) == -signal.SIGTERM


def test_signal_that_stops_the_process_stops_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = asleep(start("proc_sleep"))
    send_when_seized(monkeypatch, target.pid, signal.SIGTSTP)
    with hold(target.pid) as held:
        assert held.threads[0].stop_signal is None
    wait_for(lambda: state(target.pid) in "ST")
    os.kill(target.pid, signal.SIGCONT)
    wait_for(lambda: state(target.pid) == "S")


def test_signal_with_a_handler_is_delivered_within_the_hold(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = asleep(start("proc_handler"))
    send_when_seized(monkeypatch, target.pid, signal.SIGUSR1)
    with hold(target.pid) as held:
        assert held.threads[0].stop_signal is None
        assert held.threads[0].signal_mask() >> (signal.SIGUSR1 - 1) & 1
    assert target.line() == "1"
    os.kill(target.pid, signal.SIGUSR1)
    assert target.line() == "2"
