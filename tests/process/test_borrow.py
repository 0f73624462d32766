"""Borrowing a thread: system calls in another process, after which everything is as before."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.conftest import Target, wait_for
from tests.process.helpers import Start, asleep, possessions, ready, state
from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import RSP
from vcsimg.process import HeldProcess, HeldThread, code, fork_frozen, hold

privileged = pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")


def own_state(thread: HeldThread) -> tuple[object, ...]:
    """All that a thread's code can see. Not XSTATE_BV, 8 bytes at 512: the processor may mark a component as used that holds zeros."""
    area = thread.xsave()
    return thread.registers(), area[:512] + area[520:], thread.signal_mask()


def test_borrowed_thread_has_everything_back(start: Start) -> None:
    target = asleep(start("proc_threads", 3))
    before = possessions(target.pid)
    with hold(target.pid) as held:
        states = [own_state(thread) for thread in held.threads]
        stacks = [os.pread(held.memory, 8192, thread.buffer[RSP] - 8192) for thread in held.threads]
        for thread in held.threads:
            with held.borrow(thread) as borrowed:
                assert borrowed.thread is thread
                assert borrowed.syscall(NR["gettid"]) == thread.tid
                borrowed.batch([(NR["gettid"], ())])
                borrowed.scratch(1 << 20)
        assert [own_state(thread) for thread in held.threads] == states
        assert [os.pread(held.memory, 8192, thread.buffer[RSP] - 8192) for thread in held.threads] == stacks
    wait_for(lambda: possessions(target.pid) == before)


def test_failed_system_call_carries_its_errno(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    with hold(target.pid) as held, held.borrow() as borrowed:
        with pytest.raises(BorrowError) as caught:
            borrowed.syscall(NR["close"], 1000)
        assert caught.value.errno == errno.EBADF
        assert caught.value.pid == target.pid


def test_batch_returns_every_result_in_order_negative_errno_for_failures(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    calls = [
        (NR["close"], (1000,)),
        (NR["getpid"], ()),
        (NR["umask"], (0o22,)),
        (NR["umask"], (0o22,)),
        (999, (-1, -2, -3, -4, -5, -6)),
    ]
    with hold(target.pid) as held, held.borrow() as borrowed:
        results = borrowed.batch(calls * 100)
    assert results[:2] == [-errno.EBADF, target.pid]
    assert results[3:5] == [0o22, -errno.ENOSYS]
    assert results[5:] == [-errno.EBADF, target.pid, 0o22, 0o22, -errno.ENOSYS] * 99


def test_batch_reads_what_the_process_has(start: Start) -> None:
    target = asleep(start("proc_handler"))
    with hold(target.pid) as held, held.borrow() as borrowed:
        room = borrowed.scratch(64 * 32)
        results = borrowed.batch([(NR["rt_sigaction"], (number, 0, room + 32 * number, 8)) for number in range(1, 64)])
        # A signal may be ignored (1) since before the program began.
        handlers = {number for number in range(1, 64) if int.from_bytes(borrowed.read(room + 32 * number, 8), "little") > 1}
    assert set(results) == {0}
    assert handlers == {signal.SIGUSR1}


@pytest.mark.parametrize("size", [1, 4096, 60000, 1 << 22])
def test_scratch_memory_is_zeroed_writable_and_gone_afterwards(start: Start, size: int) -> None:
    target = asleep(start("proc_sleep"))
    with hold(target.pid) as held:
        with held.borrow() as borrowed:
            first, second = borrowed.scratch(size), borrowed.scratch(size)
            assert second >= first + size or first >= second + size
            assert borrowed.read(first, size) == bytes(size)
            borrowed.write(second, b"x" * size)
            assert borrowed.read(first, size) == bytes(size)
            assert borrowed.read(second, size) == b"x" * size
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(held.memory, 1, first)


def test_two_threads_can_be_borrowed_at_once(start: Start) -> None:
    target = asleep(start("proc_threads", 3))
    before = possessions(target.pid)
    with hold(target.pid) as held, held.borrow() as outer:
        room = outer.scratch(64)
        with held.borrow() as inner:
            assert inner.thread is not outer.thread
            assert inner.batch([(NR["gettid"], ())]) == [inner.thread.tid]
            inner.write(room, b"shared")
            with held.borrow() as innermost:
                assert innermost.batch([(NR["gettid"], ())]) == [innermost.thread.tid]
                with pytest.raises(BorrowError, match="borrowed already"), held.borrow():
                    pass
            assert outer.batch([(NR["gettid"], ())]) == [outer.thread.tid]
        assert outer.read(room, 6) == b"shared"
    wait_for(lambda: possessions(target.pid) == before)


def test_registers_and_mask_of_a_borrowed_thread_are_shown_as_its_own(start: Start) -> None:
    target = asleep(start("proc_handler"))
    with hold(target.pid) as held:
        thread = held.threads[0]
        registers, mask = thread.registers(), thread.signal_mask()
        assert mask
        with held.borrow() as borrowed:
            borrowed.syscall(NR["getpid"])
            assert thread.registers() == registers
            assert thread.signal_mask() == mask
            thread.set_registers({"r15": 77})
        assert thread.registers() == {**registers, "r15": 77}


def test_signals_that_come_while_a_thread_is_borrowed_are_delivered_afterwards(start: Start) -> None:
    target = asleep(start("proc_handler"))
    with hold(target.pid) as held, held.borrow() as borrowed:
        os.kill(target.pid, signal.SIGUSR1)
        os.kill(target.pid, signal.SIGWINCH)
        assert borrowed.syscall(NR["getpid"]) == target.pid
        assert borrowed.batch([(NR["getpid"], ())] * 3) == [target.pid] * 3
    assert target.line() == "1"


def still_filtered(target: Target) -> None:
    """It goes on, and the filter is in force."""
    target.send("still here\n")
    assert target.line() == "still here"
    target.send("!\n")
    assert target.process.wait(10) == -signal.SIGSYS


@pytest.mark.skipif(os.getuid() == 0, reason="the privileged suspend filters")
def test_seccomp_filter_forbids_borrowing_and_is_not_set_off(start: Start) -> None:
    target = ready(start("proc_seccomp"))
    with hold(target.pid) as held:
        assert held.can_borrow is not None
        assert "seccomp" in held.can_borrow
        with pytest.raises(BorrowError, match="seccomp"), held.borrow():
            pass
    still_filtered(target)


@privileged
def test_seccomp_filter_is_suspended_while_a_thread_is_borrowed_and_no_longer(start: Start) -> None:
    target = ready(start("proc_seccomp"))
    with hold(target.pid) as held:
        assert held.can_borrow is None
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
            assert borrowed.batch([(NR["getpid"], ())] * 3) == [target.pid] * 3
        child = fork_frozen(held)
    child.close()
    still_filtered(target)


@privileged
def test_seccomp_filter_is_in_force_again_when_vcsimg_is_killed(start: Start) -> None:
    target = ready(start("proc_seccomp"))
    script = (
        "import sys, time\nfrom vcsimg.process import hold\n"
        "with hold(int(sys.argv[1])) as held, held.borrow() as borrowed:\n"
        "    borrowed.syscall(39)\n    print('borrowed', flush=True)\n    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(target.pid)], stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == b"borrowed\n"
        tracer.kill()
    still_filtered(target)


def test_process_without_a_system_call_instruction_cannot_lend(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = asleep(start("proc_sleep"))
    monkeypatch.setattr(code, "_search", lambda memory, regions: None)
    with hold(target.pid) as held:
        assert held.can_borrow is not None
        assert "system call instruction" in held.can_borrow


def test_bare_system_call_instruction_is_enough(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program without a C library: no rt_sigreturn, no way home for a killed tracer, but borrowing works."""
    target = asleep(start("proc_threads", 2))
    monkeypatch.setattr(code, "_CALL", b"these bytes are nowhere")
    before = possessions(target.pid)
    with hold(target.pid) as held:
        registers = held.threads[0].registers()
        with held.borrow() as borrowed:
            assert borrowed.syscall(NR["getpid"]) == target.pid
            assert borrowed.batch([(NR["getpid"], ())] * 3) == [target.pid] * 3
            borrowed.scratch(100)
        assert held.threads[0].registers() == registers
    wait_for(lambda: possessions(target.pid) == before)


def test_process_that_catches_every_quiet_signal_still_lends(start: Start) -> None:
    target = asleep(start("proc_catches_all"))
    with hold(target.pid) as held, held.borrow() as borrowed:
        assert borrowed.batch([(NR["getpid"], ()), (NR["getppid"], ())]) == [target.pid, os.getpid()]
    target.send("\n")
    assert target.line() == "0 signals"


def test_process_that_may_not_map_memory_lends_without_scratch(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    resource.prlimit(target.pid, resource.RLIMIT_AS, (4096, 4096))
    with hold(target.pid) as held, held.borrow() as borrowed:
        assert borrowed.syscall(NR["getpid"]) == target.pid
        assert borrowed.batch([(NR["getpid"], ())]) == [target.pid]
        with pytest.raises(BorrowError) as caught:
            borrowed.scratch(100)
        assert caught.value.errno == errno.ENOMEM


def test_process_that_forbids_writable_code_still_lends(start: Start) -> None:
    target = ready(start("proc_mdwe"))
    with hold(target.pid) as held, held.borrow() as borrowed:
        assert borrowed.batch([(NR["getpid"], ())] * 2) == [target.pid] * 2
        borrowed.write(borrowed.scratch(100), b"x" * 100)


def test_killed_process_is_reported(start: Start) -> None:
    target = asleep(start("proc_threads", 2))

    def kill_while_borrowed(held: HeldProcess) -> None:
        with held.borrow() as borrowed:
            os.kill(target.pid, signal.SIGKILL)
            wait_for(lambda: state(target.pid) == "Z")
            with pytest.raises(ProcessChanged):
                borrowed.syscall(NR["getpid"])

    with hold(target.pid) as held, pytest.raises(ProcessChanged):
        kill_while_borrowed(held)
    assert target.process.wait(10) == -signal.SIGKILL
