"""kill -9 of whoever reads, at every step: the process goes on, and has back what was lent, as docs/memory.md says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.memory.conftest import Layout, Start, checksum, in_child, layout_of
from vcsimg.kernel import features, ptrace
from vcsimg.memory import SharedMemory
from vcsimg.process import hold

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 and not features.available("ptrace_any"), reason="the tracer here is not an ancestor of the process"
)

SIZE = 1 << 13


class Death:
    """Kills this process at its n-th ptrace request of a phase; with 0, counts them. Questions whether a thread has stopped yet
    do not count: there may be any number."""

    def __init__(self, phase: str, number: int) -> None:
        self.phase = "hold"
        self.counts: dict[str, int] = {}
        self._when = phase, number
        self._request = ptrace.request
        ptrace.request = self

    def __call__(self, *arguments: object) -> int:
        if arguments[0] == ptrace.PTRACE_GETREGS:
            return self._request(*arguments)
        self.counts[self.phase] = self.counts.get(self.phase, 0) + 1
        if self._when == (self.phase, self.counts[self.phase]):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._request(*arguments)


def use_a_window(layout: Layout, death: Death) -> dict[str, int]:
    """Open, read, write, rest, close."""
    with hold(layout.pid) as held:
        death.phase = "open"
        memory = SharedMemory(held)
        death.phase = "copy"
        memory.read(layout.area, 300)
        time.sleep(0.003)
        memory.write(layout.area, b"written")
        death.phase = "close"
        memory.close()
        death.phase = "release"
    return death.counts


def leftovers(layout: Layout) -> tuple[list[str], list[str]]:
    """Mappings and descriptors of a window."""
    maps = Path(f"/proc/{layout.pid}/maps").read_text().splitlines()
    folder = Path(f"/proc/{layout.pid}/fd")
    links = [os.readlink(folder / name) for name in os.listdir(folder)]
    return [line for line in maps if "vcsimg-window" in line], [link for link in links if "vcsimg-window" in link]


def works(layout: Layout) -> bool:
    """The program goes on where it was, in its read of stdin, and its memory is as it wrote it or as it was written."""
    found = layout.checksum(layout.area, SIZE)
    content = layout.content(0, SIZE)
    status = Path(f"/proc/{layout.pid}/status").read_text()
    assert "SigBlk:\t0000000000000000" in status
    assert "TracerPid:\t0" in status
    return found in (checksum(content), checksum(b"written" + content[7:]))


@pytest.mark.parametrize("phase", ["hold", "open", "copy", "close", "release"])
def test_a_tracer_killed_at_any_request_leaves_a_process_that_goes_on(start: Start, phase: str) -> None:
    layout = layout_of(start("mem_layout", SIZE))
    status, counts = in_child(lambda: use_a_window(layout, Death("", 0)))
    assert status == 0
    assert counts is not None
    assert works(layout)
    kills = 0
    for number in range(1, counts[phase] + 1):
        layout = layout_of(start("mem_layout", SIZE))
        status, _ = in_child(lambda number=number, layout=layout: use_a_window(layout, Death(phase, number)))  # type: ignore[misc]
        kills += os.WIFSIGNALED(status)
        assert works(layout), f"killed at request {number}"
        mappings, descriptors = leftovers(layout)
        if phase != "open":
            assert (mappings, descriptors) == ([], []), f"killed at request {number}"
        assert len(descriptors) <= 1
        layout.target.end()
    assert kills


def test_a_tracer_killed_while_the_thread_is_parked(layout: Layout) -> None:
    def parked() -> None:
        with hold(layout.pid) as held, SharedMemory(held, linger=False) as memory:
            memory.read(layout.area, 8)
            wait_for(lambda: not memory.window.awake)
            os.kill(os.getpid(), signal.SIGKILL)

    before = Path(f"/proc/{layout.pid}/maps").read_text()
    assert os.WIFSIGNALED(in_child(parked)[0])
    assert layout.checksum(layout.area, 9) == checksum(layout.content(0, 9))
    assert Path(f"/proc/{layout.pid}/maps").read_text() == before


@pytest.mark.parametrize("store", [False, True])
def test_a_copy_that_is_under_way_is_finished(start: Start, store: bool) -> None:
    """What was in the window when the tracer died is written whole, not in part."""
    size = 32 << 20
    layout = layout_of(start("mem_layout", size))

    def copying() -> None:
        with hold(layout.pid) as held, SharedMemory(held, size) as memory:
            buffer = memory.buffer(size)
            buffer[:] = b"w" * size
            window = memory.window
            window.post_one(layout.area, size, window._total - size, store=store)
            os.kill(os.getpid(), signal.SIGKILL)

    before = Path(f"/proc/{layout.pid}/maps").read_text()
    assert os.WIFSIGNALED(in_child(copying)[0])
    expected = b"w" * 100 if store else layout.content(size - 100, 100)
    assert layout.checksum(layout.area + size - 100, 100) == checksum(expected)
    assert Path(f"/proc/{layout.pid}/maps").read_text() == before


def test_a_signal_that_came_meanwhile_is_handled_after_the_tracer_has_died(start: Start) -> None:
    layout = layout_of(start("mem_layout", SIZE, env={**os.environ, "MEM_HANDLER": "1"}))

    def signalled() -> None:
        with hold(layout.pid) as held, SharedMemory(held) as memory:
            memory.read(layout.area, 8)
            os.kill(layout.pid, signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(in_child(signalled)[0])
    assert layout.target.line() == "handler"
    assert works(layout)
