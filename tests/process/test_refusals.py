"""Processes that cannot be held: the error says why."""

from __future__ import annotations

import os
import pickle
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import compile_target, wait_for
from tests.process.helpers import Start, ready, state, tracers
from vcsimg.errors import AlreadyTraced, NoSuchProcess, NotPermitted, ProcessError, UnsupportedProcess
from vcsimg.process import hold

NOBODY = 65534


def refused(pid: int) -> ProcessError:
    """The error with which hold() refuses a process."""
    with pytest.raises(ProcessError) as caught, hold(pid):
        pass
    assert caught.value.pid == pid
    return caught.value


def as_other_user(uid: int, work: Callable[[], Any]) -> Any:
    """The result of a function in a child process that runs as another user; an exception that it raises is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer: Any = work()
        except BaseException as error:
            answer = (type(error).__name__, str(error), getattr(error, "remedy", None))
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("pid", [-1, 0, 1 << 22, 1 << 40])
def test_no_such_process(pid: int) -> None:
    assert isinstance(refused(pid), NoSuchProcess)


def test_zombie(start: Start) -> None:
    target = start("/bin/true")
    wait_for(lambda: state(target.pid) == "Z")
    error = refused(target.pid)
    assert isinstance(error, UnsupportedProcess)
    assert "zombie" in str(error)


def test_kernel_thread() -> None:
    kernel_threads = [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _is_kernel_thread(path.parent / "stat")
    ]
    if not kernel_threads:
        pytest.skip("no kernel thread is visible here")
    error = refused(kernel_threads[0])
    assert isinstance(error, UnsupportedProcess)
    assert "kernel thread" in str(error)


def _is_kernel_thread(path: Path) -> bool:
    try:
        return bool(int(path.read_text().rpartition(")")[2].split()[6]) & 0x00200000)
    except OSError:
        return False


def test_vcsimg_itself() -> None:
    assert isinstance(refused(os.getpid()), UnsupportedProcess)


def test_thread_id_that_is_no_process_id(start: Start) -> None:
    target = ready(start("proc_threads", 2))
    thread = max(int(tid) for tid in os.listdir(f"/proc/{target.pid}/task"))
    error = refused(thread)
    assert isinstance(error, UnsupportedProcess)
    assert str(target.pid) in str(error)
    assert tracers(target.pid) == {0}


def test_process_under_another_tracer(start: Start) -> None:
    target = ready(start("proc_sleep"))
    held, done = threading.Event(), threading.Event()

    def hold_it() -> None:
        with hold(target.pid):
            held.set()
            done.wait(10)

    other = threading.Thread(target=hold_it)
    other.start()
    assert held.wait(10)
    error = refused(target.pid)
    done.set()
    other.join()
    assert isinstance(error, AlreadyTraced)
    assert error.tracer == os.getpid()


def test_process_of_another_user(start: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    target = ready(start("proc_sleep"))
    kind, message, remedy = as_other_user(NOBODY, lambda: hold(target.pid).__enter__())
    assert kind == NotPermitted.__name__
    assert "belongs to user 0 and you are user 65534" in message
    assert remedy
    assert tracers(target.pid) == {0}


def test_process_that_is_not_dumpable(start: Start, as_nobody: list[str]) -> None:
    target = ready(start("/usr/bin/env", *as_nobody, compile_target("proc_undumpable")))
    kind, message, _ = as_other_user(NOBODY, lambda: hold(target.pid).__enter__())
    assert kind == NotPermitted.__name__
    assert "not dumpable" in message


def test_ordinary_user_holds_and_borrows_own_process(start: Start, as_nobody: list[str]) -> None:
    target = ready(start("/usr/bin/env", *as_nobody, compile_target("proc_threads"), 3))

    def work() -> tuple[int, int]:
        with hold(target.pid) as held, held.borrow() as borrowed:
            return len(held.threads), borrowed.batch([(39, ())])[0]

    assert as_other_user(NOBODY, work) == (3, target.pid)
    assert tracers(target.pid) == {0}


# mov $29, %eax (pause); int $0x80; jmp to the beginning: 32-bit code
_PAUSE = bytes.fromhex("b81d000000cd80ebf7")


def test_32_bit_process(start: Start, tmp_path: Path) -> None:
    base = 0x08048000
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("<IIIIIIII", 1, 0, base, base, 84 + len(_PAUSE), 84 + len(_PAUSE), 5, 0x1000)
    program = tmp_path / "program"
    program.write_bytes(header + _PAUSE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    try:
        target = start(program)
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    wait_for(lambda: state(target.pid) == "S")
    error = refused(target.pid)
    assert isinstance(error, UnsupportedProcess)
    assert "32-bit" in str(error)
    assert tracers(target.pid) == {0}
