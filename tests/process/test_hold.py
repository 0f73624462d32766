"""Holding a process: every thread stops, and is given back as it was."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.process.helpers import Start, asleep, possessions, ready, state, tracers
from vcsimg.errors import AlreadyTraced, ProcessChanged
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import REGISTERS
from vcsimg.process import deferred, hold


def test_held_process_is_stopped_and_runs_on_afterwards(start: Start) -> None:
    target = ready(start("proc_sleep"))
    with hold(target.pid) as held:
        assert [thread.tid for thread in held.threads] == [target.pid]
        assert state(target.pid) == "t"
    assert state(target.pid) in "RS"
    assert tracers(target.pid) == {0}


def test_nothing_is_left_of_a_hold(start: Start) -> None:
    target = asleep(start("proc_threads", 3))
    before = possessions(target.pid)
    with hold(target.pid):
        pass
    own = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with hold(target.pid) as held:
            assert held.memory >= 0
            assert held.pagemap >= 0
    assert possessions(target.pid) == before
    assert sorted(os.listdir("/proc/self/fd")) == own


def test_a_thousand_threads_are_all_held_the_main_one_first(start: Start) -> None:
    target = ready(start("proc_threads", 1000))
    with hold(target.pid) as held:
        tids = [thread.tid for thread in held.threads]
        assert sorted(tids) == sorted(map(int, os.listdir(f"/proc/{target.pid}/task")))
        assert len(tids) == 1000
        assert tids[0] == target.pid
        assert tids[1:] == sorted(tids[1:])
        assert {state(target.pid, tid) for tid in tids} == {"t"}
    assert tracers(target.pid) == {0}


def test_registers_have_the_kernels_names_and_values(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    waiting = Path(f"/proc/{target.pid}/syscall").read_text().split()
    with hold(target.pid) as held:
        registers = held.threads[0].registers()
    assert tuple(registers) == REGISTERS
    assert registers["orig_rax"] == int(waiting[0]) == NR["pause"]
    assert registers["rsp"] == int(waiting[-2], 16)
    assert registers["rip"] == int(waiting[-1], 16)


def test_registers_that_are_set_stay_set(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    with hold(target.pid) as held:
        held.threads[0].set_registers({"r15": 0x1234567890ABCDEF, "r14": -1})
    with hold(target.pid) as held:
        registers = held.threads[0].registers()
    assert registers["r15"] == 0x1234567890ABCDEF
    assert registers["r14"] == 2**64 - 1


def test_xsave_area_that_is_set_stays_set(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    with hold(target.pid) as held:
        area = bytearray(held.threads[0].xsave())
        area[160:176] = b"sixteen in xmm0!"
        area[512] |= 2
        held.threads[0].set_xsave(bytes(area))
    with hold(target.pid) as held:
        assert held.threads[0].xsave()[160:176] == b"sixteen in xmm0!"
        with pytest.raises(ValueError, match="not an XSAVE area"):
            held.threads[0].set_xsave(b"too short")


def test_signals_that_wait_are_listed_with_their_siginfo(start: Start) -> None:
    target = ready(start("proc_steady", "read"))
    worker = max(int(name) for name in os.listdir(f"/proc/{target.pid}/task"))
    wait_for(lambda: state(target.pid, worker) == "S")
    with hold(target.pid) as held:
        thread = held.threads[1]
        assert thread.tid == worker
        assert thread.signal_mask() == 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGRTMIN + 3 - 1)
        assert thread.pending() == []
        os.kill(target.pid, signal.SIGRTMIN + 3)
        os.kill(target.pid, signal.SIGRTMIN + 3)
        numbers = [int.from_bytes(info[:4], "little") for info in thread.shared_pending()]
        assert numbers == [signal.SIGRTMIN + 3] * 2
        assert [len(info) for info in thread.shared_pending()] == [128, 128]


def test_stopped_process_stays_stopped(start: Start) -> None:
    target = ready(start("proc_threads", 3))
    target.stop()
    with hold(target.pid) as held:
        assert [thread.group_stopped for thread in held.threads] == [True] * 3
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
            assert borrowed.batch([(NR["getpid"], ())] * 3) == [target.pid] * 3
    wait_for(lambda: {state(target.pid, thread.tid) for thread in held.threads} == {"T"})
    os.kill(target.pid, signal.SIGCONT)
    wait_for(lambda: state(target.pid) == "S")


def test_process_that_is_continued_while_held_runs_on(start: Start) -> None:
    target = ready(start("proc_sleep"))
    target.stop()
    with hold(target.pid) as held:
        os.kill(target.pid, signal.SIGCONT)
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
    wait_for(lambda: state(target.pid) == "S")


@pytest.mark.parametrize("borrow", [False, True])
def test_process_that_is_stopped_while_held_stops(start: Start, borrow: bool) -> None:
    target = ready(start("proc_threads", 2))
    with hold(target.pid) as held:
        os.kill(target.pid, signal.SIGSTOP)
        if borrow:
            with held.borrow() as borrowed:
                assert borrowed.syscall(NR["getpid"]) == target.pid
    wait_for(lambda: {state(target.pid, thread.tid) for thread in held.threads} == {"T"})


def test_release_lets_go_before_the_block_ends_and_memory_stays_readable(start: Start) -> None:
    target = ready(start("proc_sleep"))
    with hold(target.pid) as held:
        stack = held.threads[0].registers()["rsp"]
        held.release()
        assert tracers(target.pid) == {0}
        pause = held.pause
        held.release()
        assert held.pause == pause > 0
        assert len(os.pread(held.memory, 8, stack)) == 8


def test_pause_is_measured_from_the_first_stop_to_the_last_release(start: Start) -> None:
    target = ready(start("proc_sleep"))
    before = time.monotonic()
    with hold(target.pid) as held:
        time.sleep(0.05)
    after = time.monotonic()
    assert before <= held.stopped_at <= after
    assert 0.05 <= held.pause <= after - before


def test_killed_process_is_reported_and_its_end_is_seen_by_its_parent(start: Start) -> None:
    target = ready(start("proc_threads", 5))
    with hold(target.pid) as held:
        os.kill(target.pid, signal.SIGKILL)
        wait_for(lambda: state(target.pid) == "Z")
        with pytest.raises(ProcessChanged):
            held.threads[1].xsave()
        with pytest.raises(ProcessChanged):
            held.threads[1].set_registers({"r15": 1})
    assert target.process.wait(10) == -signal.SIGKILL


def test_process_of_another_parent_that_is_killed_while_held_is_passed_on(start: Start) -> None:
    target = start("/bin/sh", "-c", "sleep 1000 & echo $!; wait $!; echo $?; read line")
    child = int(target.line())
    with hold(child):
        os.kill(child, signal.SIGKILL)
    assert target.line() == str(128 + signal.SIGKILL)


def test_main_thread_that_has_ended_is_left_out(start: Start) -> None:
    target = ready(start("proc_no_main"))
    wait_for(lambda: state(target.pid) == "Z")
    with hold(target.pid) as held:
        assert len(held.threads) == 2
        assert target.pid not in [thread.tid for thread in held.threads]
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
    assert {state(target.pid, thread.tid) for thread in held.threads} <= {"S", "R"}


def test_only_the_thread_that_holds_can_release(start: Start) -> None:
    target = ready(start("proc_sleep"))
    trouble: list[str] = []
    with hold(target.pid) as held:

        def release() -> None:
            try:
                held.release()
            except RuntimeError as error:
                trouble.append(str(error))

        other = threading.Thread(target=release)
        other.start()
        other.join()
        assert "another thread" in trouble[0]
        assert state(target.pid) == "t"
    assert tracers(target.pid) == {0}


def test_another_thread_than_the_main_one_can_hold(start: Start) -> None:
    target = ready(start("proc_threads", 3))
    found: list[int] = []

    def work() -> None:
        with hold(target.pid) as held, held.borrow() as borrowed:
            found.append(borrowed.syscall(NR["getpid"]))

    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert found == [target.pid]
    assert tracers(target.pid) == {0}


def test_held_process_cannot_be_held_again(start: Start) -> None:
    target = ready(start("proc_sleep"))
    with hold(target.pid) as held:
        with pytest.raises(AlreadyTraced) as caught, hold(target.pid):
            pass
        assert caught.value.tracer == os.getpid()
        assert held.threads[0].registers()
    assert tracers(target.pid) == {0}


def test_signals_are_deferred_also_after_a_time_without_handlers() -> None:
    arrived = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        with deferred():
            pass
        signal.signal(signal.SIGTERM, lambda *_: arrived.append(1))
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert arrived == []
        assert arrived == [1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption(Exception):
    """Raised at some moment of a hold."""


def test_exception_at_any_moment_leaves_the_process_running(start: Start) -> None:
    target = ready(start("proc_steady", "busy"))
    target.send("\n")
    assert target.line() == "ok 0 more mappings"
    before = possessions(target.pid)

    def raise_it(number: int, frame: object) -> None:
        raise Interruption

    previous = signal.signal(signal.SIGINT, raise_it)
    parent = os.getpid()
    try:
        for round_ in range(150):
            # Another process sends the signal, so that it can come at any instruction.
            begin, told = os.pipe()
            child = os.fork()
            if child == 0:
                os.read(begin, 1)
                end = time.perf_counter() + round_ * 4e-6
                while time.perf_counter() < end:
                    pass
                os.kill(parent, signal.SIGINT)
                os._exit(0)
            try:
                os.write(told, b"x")
                while True:
                    with hold(target.pid) as held, held.borrow() as borrowed:
                        borrowed.batch([(NR["getpid"], ())])
            except Interruption:
                pass
            finally:
                os.waitpid(child, 0)
                os.close(begin)
                os.close(told)
            assert tracers(target.pid) == {0}
    finally:
        signal.signal(signal.SIGINT, previous)
    target.send("\n")
    assert target.line() == "ok 0 more mappings"
    assert possessions(target.pid) == before
