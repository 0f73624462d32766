"""The shared window: what it lends comes back, and nothing but memory that was asked for changes."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.memory.conftest import Layout, Start, checksum, layout_of
from vcsimg.errors import AccessError, BorrowError
from vcsimg.memory import AutoMemory, SharedMemory, window, x86_64
from vcsimg.memory.window import Window
from vcsimg.process import HeldProcess, hold

PAGE = 4096


def lent(pid: int) -> dict[str, object]:
    """What a window could leave behind in a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        "map": Path(f"/proc/{pid}/maps").read_text(),
        "descriptors": sorted(os.listdir(f"/proc/{pid}/fd")),
        "signals": re.findall(r"^(?:Sig[^Q]|Shd)\w+:\s*\S+", status, re.MULTILINE),
        "threads": re.findall(r"^Threads:.*", status, re.MULTILINE),
    }


def test_everything_comes_back(layout: Layout) -> None:
    before = lent(layout.pid)
    with hold(layout.pid) as held:
        thread = held.threads[0]
        registers, vectors, mask = thread.registers(), thread.xsave(), thread.signal_mask()
        with SharedMemory(held, 1 << 20) as memory:
            assert "vcsimg-window" in lent(layout.pid)["map"]  # type: ignore[operator]
            memory.read(layout.area, 300_000)
            memory.write(layout.area, b"new")
            with pytest.raises(AccessError):
                memory.read(layout.hidden, 8)
        assert (thread.registers(), thread.xsave(), thread.signal_mask()) == (registers, vectors, mask)
        assert lent(layout.pid) == before
    assert lent(layout.pid) == before
    assert layout.checksum(layout.area, 4) == checksum(b"new" + layout.content(3, 1))


def test_a_window_that_was_never_used_comes_back(layout: Layout) -> None:
    before = lent(layout.pid)
    with hold(layout.pid) as held:
        SharedMemory(held).close()
        assert lent(layout.pid) == before
    assert layout.checksum(layout.area, 1) == checksum(layout.content(0, 1))


@pytest.mark.parametrize("nap", [0, 0.00002, 0.0005, 0.02])
def test_it_comes_back_however_long_after_the_last_command(layout: Layout, nap: float) -> None:
    """The thread may be copying, waiting for a command, about to park, or parked."""
    before = lent(layout.pid)
    for _ in range(20):
        with hold(layout.pid) as held, SharedMemory(held) as memory:
            memory.read(layout.area, 100)
            deadline = time.perf_counter() + nap
            while time.perf_counter() < deadline:
                pass
        assert lent(layout.pid) == before
        assert layout.checksum(layout.area, 1) == checksum(layout.content(0, 1))


def test_the_target_does_not_run_for_long_after_a_command(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        memory.read(layout.area, 100)
        wait_for(lambda: Path(f"/proc/{layout.pid}/stat").read_text().rpartition(")")[2].split()[0] == "t")
        assert memory.read(layout.area, 100) == layout.content(0, 100)


def test_a_buffer_of_the_window_is_filled_and_written_where_it_lies(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held, 4 * PAGE) as memory:
        all_of_it, part = memory.buffer(4 * PAGE), memory.buffer(PAGE, 2 * PAGE)
        memory.read_into(layout.area, part)
        assert all_of_it[2 * PAGE : 3 * PAGE] == layout.content(0, PAGE)
        all_of_it[5:9] = b"from"
        memory.write(layout.area, all_of_it[5:9])
        ranges = [(layout.area + PAGE, 10), (layout.readonly, 5)]
        assert memory.read_many(ranges, all_of_it[7:22]) == 15
        assert all_of_it[5:22] == b"fr" + layout.content(PAGE, 10) + b"rrrrr"
        for length, offset in ((4 * PAGE + 1, 0), (1, 4 * PAGE), (-1, 5), (1, -1)):
            with pytest.raises(ValueError, match="of a window of"):
                memory.buffer(length, offset)
    assert all_of_it[5:7] == b"fr", "a buffer that is still used outlives the window"
    assert layout.checksum(layout.area, 4) == checksum(b"from")


def test_with_one_cpu_it_works_by_stopping(layout: Layout) -> None:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        with hold(layout.pid) as held, SharedMemory(held) as memory:
            assert memory.read(layout.area, layout.size) == layout.content(0, layout.size)
            assert not memory.window.awake
    finally:
        os.sched_setaffinity(0, cpus)


def test_without_lingering_the_thread_stops_after_each_command(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held, linger=False) as memory:
        for offset in range(50):
            assert memory.read(layout.area + offset, 99) == layout.content(offset, 99)
            wait_for(lambda: not memory.window.awake)


def test_lingering_is_given_up_when_commands_come_too_late_and_tried_again_when_asked(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        if len(os.sched_getaffinity(0)) == 1:
            pytest.skip("there is no second CPU to linger on")
        for _ in range(10):
            memory.read(layout.area, 8)
            wait_for(lambda: not memory.window.awake)
        assert not memory.window.lingers
        memory.window.linger()
        memory.read(layout.area, 8)
        assert memory.window.lingers


def test_a_stream_is_filled_ahead_and_can_be_left(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held, 64 * PAGE) as memory:
        stream = memory.stream([(layout.area + index * PAGE, PAGE)] for index in range(200))
        assert bytes(next(stream)) == layout.content(0, PAGE)
        assert bytes(next(stream)) == layout.content(PAGE, PAGE)
        stream.close()
        assert memory.read(layout.area, 10) == layout.content(0, 10)
        with pytest.raises(ValueError, match="room for"):
            list(memory.stream([[(layout.area, 33 * PAGE)]]))
        with pytest.raises(AccessError) as caught:
            list(memory.stream([[(layout.area, 5)], [(layout.area, 5), (layout.hidden, 5)]]))
        assert (caught.value.address, caught.value.done) == (layout.hidden, 0)
        assert list(memory.stream([])) == []


def test_a_command_that_nobody_waited_for_does_not_spoil_the_next(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(layout.pid) as held, SharedMemory(held, 1 << 20) as memory:
        read_interrupted(memory, layout, monkeypatch)
        assert memory.read(layout.area + 7, 50) == layout.content(7, 50)
        read_interrupted(memory, layout, monkeypatch)
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


def read_interrupted(memory: SharedMemory, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while a command runs."""

    def interrupted(self: Window) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Window, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.read_into(layout.area, memory.buffer(1 << 20))


@pytest.fixture
def short_file(tmp_path: Path) -> Path:
    path = tmp_path / "mapped"
    path.write_bytes(b"f" * PAGE)
    return path


def test_memory_that_faults_is_an_error_and_the_process_keeps_its_signals(start: Start, short_file: Path) -> None:
    """Beyond the end of a mapped file there is nothing, though the map lists it: the copy meets SIGBUS."""
    layout = layout_of(start("mem_layout", 1 << 16, env={**os.environ, "MEM_IGNORE": "1", "MEM_FILE": str(short_file)}))
    mapped = int(layout.target.line())
    before = lent(layout.pid)
    with hold(layout.pid) as held:
        mask = held.threads[0].signal_mask()
        with SharedMemory(held, 4 * PAGE) as memory:
            for buffer in (bytearray(3 * PAGE), memory.buffer(3 * PAGE)):
                with pytest.raises(AccessError) as caught:
                    memory.read_into(mapped + 100, buffer)
                assert (caught.value.address, caught.value.length, caught.value.done) == (mapped + 100, 3 * PAGE, PAGE - 100)
                assert buffer[: PAGE - 100] == b"f" * (PAGE - 100)
            with pytest.raises(AccessError) as caught:
                memory.read_many([(layout.area, 9), (mapped, 2 * PAGE)], bytearray(3 * PAGE))
            assert (caught.value.address, caught.value.earlier, caught.value.done) == (mapped, 9, PAGE)
            with pytest.raises(AccessError) as caught:
                memory.write(mapped + PAGE - 3, b"written")
            assert caught.value.done == 3
            with pytest.raises(AccessError) as caught:
                list(memory.stream([[(mapped, 2 * PAGE)]]))
            assert caught.value.done == PAGE
            assert memory.read(layout.area, 20) == layout.content(0, 20)
        with AutoMemory(held, window=0) as auto, pytest.raises(AccessError) as caught:
            auto.read(mapped, 1 << 20)
        assert caught.value.done == PAGE
        assert held.threads[0].signal_mask() == mask
    assert lent(layout.pid) == before
    layout.target.send("ignored\n")
    assert layout.target.line() == "1"
    assert short_file.read_bytes() == b"f" * (PAGE - 3) + b"wri"


def test_a_stop_signal_during_a_window_is_not_lost(layout: Layout) -> None:
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        memory.read(layout.area, 10)
        os.kill(layout.pid, signal.SIGSTOP)
        for _ in range(100):
            assert memory.read(layout.area, 10) == layout.content(0, 10)
    wait_for(lambda: Path(f"/proc/{layout.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    os.kill(layout.pid, signal.SIGCONT)
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


def test_a_signal_with_a_handler_waits_until_the_window_is_closed(start: Start) -> None:
    layout = layout_of(start("mem_layout", 1 << 16, env={**os.environ, "MEM_HANDLER": "1"}))
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        os.kill(layout.pid, signal.SIGUSR1)
        for _ in range(100):
            assert memory.read(layout.area, 10) == layout.content(0, 10)
    assert layout.target.line() == "handler"
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


@pytest.fixture
def waits_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, int]:
    """A layout, and the address of a page that nobody ever brings: its userfaultfd is not served."""
    layout = layout_of(start("mem_layout", 1 << 16, env={**os.environ, "MEM_MISSING": "1"}))
    missing = int(layout.target.line())
    if missing == 0:
        pytest.skip("userfaultfd is not permitted here")
    monkeypatch.setattr(window, "_COMMAND_SECONDS", 0.2)
    return layout, missing


def test_a_page_that_never_comes_is_an_error_after_a_while(waits_for_ever: tuple[Layout, int]) -> None:
    layout, missing = waits_for_ever
    with hold(layout.pid) as held, SharedMemory(held) as memory:
        with pytest.raises(AccessError, match="timed out") as caught:
            memory.read(missing - 50, 100)
        assert (caught.value.done, caught.value.length) == (50, 100)
        assert memory.read(layout.area, 10) == layout.content(0, 10)
    with hold(layout.pid) as held, AutoMemory(held, window=1 << 20) as auto:
        with pytest.raises(AccessError, match="timed out") as caught:
            auto.read(missing - PAGE, PAGE + (1 << 20))
        assert caught.value.done == PAGE
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_NOFILE"])
def test_a_process_at_its_limits_has_no_window(start: Start, limit: str) -> None:
    layout = layout_of(start("mem_layout", 1 << 16, env={**os.environ, "MEM_LIMIT": limit}))
    before = lent(layout.pid)
    with hold(layout.pid) as held:
        with pytest.raises(BorrowError):
            SharedMemory(held, 8 << 20)
        assert lent(layout.pid) == before
        with AutoMemory(held, window=8 << 20) as memory:
            assert memory.refused is not None
            assert memory.read(layout.area, 1 << 16) == layout.content(0, 1 << 16)
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


def test_a_thread_can_be_chosen(start: Start) -> None:
    layout = layout_of(start("mem_layout", 1 << 16, env={**os.environ, "MEM_THREAD": "1"}))
    with hold(layout.pid) as held:
        main, other = held.threads
        with SharedMemory(held, thread=other) as memory, held.borrow(main) as borrowed:
            assert memory.read(layout.area, 10) == layout.content(0, 10)
            assert borrowed.syscall(39) == layout.pid
            assert memory.read(layout.area, 10) == layout.content(0, 10)
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


def test_two_windows_at_once(start: Start) -> None:
    first, second = (layout_of(start("mem_layout", 1 << 16)) for _ in range(2))

    def opened(held: HeldProcess) -> SharedMemory:
        return SharedMemory(held)

    with hold(first.pid) as one, hold(second.pid) as two, opened(one) as near, opened(two) as far:
        near.write(first.area, b"first")
        far.write(second.area, near.read(first.area, 5))
    assert second.checksum(second.area, 5) == checksum(b"first")


def test_the_code_is_its_assembly(tmp_path: Path) -> None:
    (tmp_path / "code.s").write_text(x86_64.ASSEMBLY)
    subprocess.run(["as", "-o", "code.o", "code.s"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "code.o", "code"], cwd=tmp_path, check=True)
    assert (tmp_path / "code").read_bytes() == x86_64.CODE
    symbols = subprocess.run(["nm", "code.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    found = {name: int(value, 16) for value, _, name in (line.split() for line in symbols.splitlines())}
    assert (found["entry"], found["load"], found["store"]) == (x86_64.ENTRY, x86_64.LOAD, x86_64.STORE_LOOP)
    names = ("COMMAND", "DONE", "PARKED", "SPINS", "STORE", "COUNT", "CURSOR", "UNMAP", "CALL")
    assert {name: found[name] for name in names} == {name: getattr(x86_64, name) for name in names}
    copies = [match.start() for match in re.finditer(rb"\xf3\xa4", x86_64.CODE)]
    assert tuple(at + step for at in copies for step in (0, 2)) == x86_64._COPYING


def test_the_layout_of_a_window_is_in_pages() -> None:
    assert mmap.PAGESIZE == x86_64.PAGE
    assert len(x86_64.CODE) <= x86_64.PAGE
    assert x86_64.DATA % x86_64.PAGE == 0
    assert ctypes.sizeof(ctypes.c_uint64) * 2 * x86_64.RANGES_LIMIT == x86_64.DATA - x86_64.RANGES


def test_auto_wakes_the_window_for_small_reads_only_now_and_then(layout: Layout) -> None:
    with hold(layout.pid) as held, AutoMemory(held, window=0) as memory:
        assert memory._window is not None
        window = memory._window.window
        for offset in range(200):
            assert memory.read(layout.area + offset, 8) == layout.content(offset, 8)
            wait_for(lambda: not window.awake)
        assert 1 <= window.posted <= 20
        before = window.posted
        assert memory.read(layout.area, 600_000) == layout.content(0, 600_000)
        assert window.posted > before
