"""A window into a frozen child: its code copies while the process runs on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.memory.conftest import Layout, checksum, in_child
from vcsimg.errors import AccessError, ProcessChanged
from vcsimg.kernel import features
from vcsimg.memory import AutoMemory, SharedMemory
from vcsimg.process import hold
from vcsimg.process.frozen import FrozenChild, fork_frozen

PAGE = 4096


@pytest.fixture
def child(layout: Layout) -> Iterator[FrozenChild]:
    with hold(layout.pid) as held:
        child = fork_frozen(held)
    yield child
    child.close()


def children(pid: int) -> list[str]:
    """Processes whose parent it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        if rest.split()[1] == str(pid):
            found.append(name)
    return found


def test_it_shows_the_image_while_the_process_changes_its_memory(layout: Layout, child: FrozenChild) -> None:
    with SharedMemory(child, 1 << 20) as memory:
        assert "vcsimg-window" not in Path(f"/proc/{layout.pid}/maps").read_text()
        for _ in range(3):
            layout.target.send(f"fill {layout.area} {layout.size}\n")
            layout.target.line()
            assert memory.read(layout.area, layout.size) == layout.content(0, layout.size)
            batches = [[(layout.area + start, 100_000)] for start in range(0, 900_000, 100_000)]
            assert b"".join(map(bytes, memory.stream(batches))) == layout.content(0, 900_000)
    assert layout.checksum(layout.area, 1000) != checksum(layout.content(0, 1000))


def test_the_process_notices_nothing(layout: Layout) -> None:
    def descriptors(pid: int) -> list[str]:
        return sorted(os.listdir(f"/proc/{pid}/fd"))

    before = descriptors(layout.pid), Path(f"/proc/{layout.pid}/maps").read_text()
    with hold(layout.pid) as held:
        child = fork_frozen(held)
    with SharedMemory(child) as memory:
        memory.read(layout.area, 10)
        assert descriptors(child.pid) == []
        assert (descriptors(layout.pid), Path(f"/proc/{layout.pid}/maps").read_text()) == before
        assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))
    child.close()
    assert children(layout.pid) == []
    assert (descriptors(layout.pid), Path(f"/proc/{layout.pid}/maps").read_text()) == before


@pytest.mark.parametrize("window", [None, 1 << 20])
def test_auto_reads_what_protection_hides_in_the_image(layout: Layout, child: FrozenChild, window: int | None) -> None:
    with AutoMemory(child, window=window) as memory:
        assert memory.refused is None
        wanted = [(layout.area, 200_000), (layout.hidden, 2 * PAGE), (layout.readonly, PAGE)]
        buffer = bytearray(200_000 + 3 * PAGE)
        memory.read_many(wanted, buffer)
        assert buffer == layout.content(0, 200_000) + b"h" * 2 * PAGE + b"r" * PAGE
        with pytest.raises(AccessError) as caught:
            memory.read(layout.end - 3 * 30_000, 4 * 30_000)
        assert caught.value.done == 0


def test_a_child_that_is_killed_is_an_error(layout: Layout, child: FrozenChild) -> None:
    with SharedMemory(child) as memory:
        memory.read(layout.area, 10)
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: ") Z" in Path(f"/proc/{child.pid}/stat").read_text())
        with pytest.raises(ProcessChanged):
            memory.read(layout.area, 10)
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


@pytest.mark.skipif(os.getuid() != 0 and not features.available("ptrace_any"), reason="the tracer is not an ancestor")
@pytest.mark.parametrize("moment", ["born", "opened", "copying", "parked"])
def test_when_we_are_killed_the_child_ends_and_runs_nothing_of_the_program(layout: Layout, moment: str) -> None:
    def until() -> None:
        with hold(layout.pid) as held:
            child = fork_frozen(held)
        if moment != "born":
            memory = SharedMemory(child, 1 << 20, linger=moment == "copying")
            if moment == "copying":
                memory.window.post_one(layout.area, 1 << 20, memory.window._total - (1 << 20), store=False)
            elif moment == "parked":
                memory.read(layout.area, 5)
                wait_for(lambda: not memory.window.awake)
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(in_child(until)[0])
    wait_for(lambda: all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z" for pid in pids(layout.pid)))
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))


def pids(parent: int) -> list[int]:
    return [int(name.partition(" ")[0]) for name in children(parent)]
