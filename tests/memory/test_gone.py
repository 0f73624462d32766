"""Processes that end, call exec, or are of a kind that not every way can read."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Target, compile_target, wait_for
from tests.memory.conftest import Layout, Start, Ways, as_ordinary_user, layout_of, open_way
from tests.process.helpers import KilledBefore
from vcsimg.errors import AccessError, BorrowError, NoSuchProcess, NotPermitted, ProcessChanged, ProcessError, UnsupportedProcess
from vcsimg.memory import AutoMemory, FastProcess, Memory, ProcMemory, SharedMemory, VmMemory, fast_peekdata, fast_pokedata
from vcsimg.process import hold

RUNNING: dict[str, Callable[[int], Memory]] = {"proc": ProcMemory, "vm": VmMemory, "auto": AutoMemory}
"""Ways to a process that runs."""

running = pytest.mark.parametrize("way", RUNNING)


def attempts(memory: Memory, address: int) -> list[Callable[[], int]]:
    """Every transfer, small and large."""
    return [
        lambda: memory.read_into(address, bytearray(8)),
        lambda: memory.read_into(address, bytearray(50_000)),
        lambda: memory.read_many([(address, 9), (address + 20, 9), (address + 40, 9)], bytearray(27)),
        lambda: memory.write(address, bytes(8)),
        lambda: memory.write(address, bytes(50_000)),
    ]


@running
def test_a_process_that_ended(layout: Layout, way: str) -> None:
    memory = RUNNING[way](layout.pid)
    memory.read_into(layout.area, bytearray(8))
    layout.target.end()
    for attempt in attempts(memory, layout.area):
        with pytest.raises(ProcessChanged) as caught:
            attempt()
        assert caught.value.pid == layout.pid
    memory.close()


@running
def test_a_zombie(layout: Layout, way: str) -> None:
    memory = RUNNING[way](layout.pid)
    layout.target.process.send_signal(signal.SIGKILL)
    wait_for(lambda: ") Z" in Path(f"/proc/{layout.pid}/stat").read_text())
    for attempt in attempts(memory, layout.area):
        with pytest.raises(ProcessChanged):
            attempt()
    memory.close()


@running
def test_a_process_that_called_exec(start: Start, way: str) -> None:
    layout = fixed_layout(start)
    memory = RUNNING[way](layout.pid)
    memory.read_into(layout.area, bytearray(8))
    layout.target.send("exec\n")
    assert layout_of(layout.target).area == layout.area, "the same addresses are mapped again"
    for attempt in attempts(memory, layout.area):
        with pytest.raises(ProcessChanged):
            attempt()
    memory.close()


def fixed_layout(start: Start) -> Layout:
    """A layout that is at the same addresses after an exec."""
    return layout_of(start("/usr/bin/setarch", "-R", str(compile_target("mem_layout"))))


def test_the_two_calls_follow_a_process_through_exec(start: Start) -> None:
    layout = fixed_layout(start)
    fast_pokedata(layout.pid, layout.area, b"changed", 7)
    layout.target.send("exec\n")
    layout_of(layout.target)
    buffer = bytearray(7)
    fast_peekdata(layout.pid, buffer, layout.area, 7)
    assert buffer == layout.content(0, 7)
    layout.target.send("exec\n")
    layout_of(layout.target)
    fast_pokedata(layout.pid, layout.area, b"again", 5)
    fast_peekdata(layout.pid, buffer, layout.area, 7)
    assert buffer == b"again" + layout.content(5, 2)


def test_the_two_calls_and_a_process_that_ended(layout: Layout) -> None:
    buffer = bytearray(8)
    fast_peekdata(layout.pid, buffer, layout.area, 8)
    layout.target.end()
    with pytest.raises(NoSuchProcess):
        fast_peekdata(layout.pid, buffer, layout.area, 8)
    with pytest.raises(NoSuchProcess):
        fast_pokedata(layout.pid, layout.area, buffer, 8)


@pytest.mark.parametrize("opened", [ProcMemory, VmMemory, AutoMemory, FastProcess])
def test_a_process_that_never_was(opened: Callable[[int], object]) -> None:
    with pytest.raises(NoSuchProcess) as caught:
        opened(2**22 + 5)
    assert caught.value.pid == 2**22 + 5


@pytest.mark.parametrize("way", ["ptrace", "proc", "vm", "shared", "auto", "auto with a window"])
def test_a_held_process_that_is_killed(layout: Layout, way: str) -> None:
    with hold(layout.pid) as held:
        memory = open_way(way, held)
        memory.read_into(layout.area, bytearray(50))
        os.kill(layout.pid, signal.SIGKILL)
        wait_for(lambda: ") Z" in Path(f"/proc/{layout.pid}/stat").read_text())
        for attempt in attempts(memory, layout.area):
            with pytest.raises(ProcessChanged):
                attempt()
        memory.close()


def test_a_process_killed_while_it_copies(start: Start) -> None:
    layout = layout_of(start("mem_layout", 64 << 20))
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -9 {layout.pid}"])
        try:
            with pytest.raises(ProcessChanged):
                read_for_ever(memory, layout)
        finally:
            killer.wait()


@pytest.mark.parametrize("misses", [0, 1000])
def test_a_process_killed_at_each_step_of_a_copy(start: Start, monkeypatch: pytest.MonkeyPatch, misses: int) -> None:
    """Also when it has just been seen to be stopped, and its thread is asked why."""
    monkeypatch.setattr("vcsimg.memory.window._MISSES", misses)
    for step in range(1, 60):
        layout = layout_of(start("mem_layout"))
        killed = KilledBefore(layout.pid, step)
        with suppress(ProcessError), hold(layout.pid) as held, killed, SharedMemory(held) as memory:
            for _ in range(4):
                assert memory.read(layout.area, 100_000) == layout.content(0, 100_000)
        assert killed.reached or step > 20
        layout.target.end()


def read_for_ever(memory: Memory, layout: Layout) -> None:
    buffer = bytearray(layout.size)
    for _ in range(100_000):
        memory.read_into(layout.area, buffer)


@pytest.fixture
def program_of_32_bits(tmp_path: Path) -> Target:
    """A 32-bit process that waits, with the word "here" at 0x8049000 or so: the address is on its command line's stdout."""
    source = tmp_path / "small.s"
    source.write_text(
        '.data\nword: .ascii "here"\nline: .ascii "ready\\n"\n.text\n.globl _start\n'
        "_start: mov $4, %eax; mov $1, %ebx; mov $line, %ecx; mov $6, %edx; int $0x80\n"
        "mov $29, %eax; int $0x80\nhlt\n"
    )
    subprocess.run(["as", "--32", "-o", tmp_path / "small.o", source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Tdata=0x8050000", "-o", tmp_path / "small", tmp_path / "small.o"], check=True)
    try:
        target = Target(tmp_path / "small")
        target.line()
    except (OSError, AssertionError):
        pytest.skip("this kernel runs no 32-bit programs")
    return target


def test_a_32_bit_process(program_of_32_bits: Target) -> None:
    pid, word = program_of_32_bits.pid, 0x8050000
    try:
        for opened in (ProcMemory, VmMemory, AutoMemory):
            memory = opened(pid)
            assert memory.read(word, 4) == b"here"
            with pytest.raises(AccessError):
                memory.read((1 << 32) - 8, 16)
            memory.close()
        with pytest.raises(UnsupportedProcess, match="32-bit"), hold(pid):
            pass
    finally:
        program_of_32_bits.end()


def test_a_process_with_a_seccomp_filter_has_a_window_for_the_privileged_and_every_other_way(start: Start) -> None:
    layout = layout_of(start("mem_layout", flags=("-DSECCOMP",)))
    with hold(layout.pid) as held:
        if os.getuid():
            with pytest.raises(BorrowError, match="seccomp"):
                SharedMemory(held)
        with AutoMemory(held, window=0) as memory:
            assert (memory.refused is None) is (os.getuid() == 0)
            assert memory.read(layout.area, 100_000) == layout.content(0, 100_000)
            memory.write(layout.area, b"w" * 100_000)
    assert layout.checksum(layout.area, 3) != 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs a process of another user")
def test_a_process_that_belongs_to_somebody_else(layout: Layout) -> None:
    pid, area = layout.pid, layout.area

    def attempts() -> list[str]:
        calls: list[Callable[[], object]] = [
            lambda: ProcMemory(pid),
            lambda: VmMemory(pid),
            lambda: AutoMemory(pid),
            lambda: VmMemory(pid, stopped=True).read(area, 8),
            lambda: fast_peekdata(pid, bytearray(8), area, 8),
            lambda: fast_pokedata(pid, area, bytes(8), 8),
        ]
        found = []
        for call in calls:
            try:
                call()
            except NotPermitted as error:
                found.append(f"refused {error.pid}")
        return found

    assert as_ordinary_user(attempts) == [f"refused {pid}"] * 6


def test_ptrace_words_of_a_process_that_is_not_held(layout: Layout) -> None:
    with pytest.raises(NotPermitted, match="does not trace"):
        open_way("ptrace", type("Held", (), {"pid": layout.pid})()).read_into(layout.area, bytearray(8))  # type: ignore[arg-type]


def test_a_memory_that_was_closed(ways: Ways) -> None:
    for way in ("proc", "auto"):
        memory = ways.open(way)
        memory.close()
        memory.close()
        with pytest.raises(AccessError, match="Bad file descriptor"):
            memory.read_into(ways.layout.area, bytearray(8))
