"""A process whose memory is known, and every way to it."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest

from tests.conftest import Target
from vcsimg.memory import AutoMemory, Memory, ProcMemory, PtraceMemory, SharedMemory, VmMemory
from vcsimg.process import HeldProcess, hold

FORCING = ("ptrace", "proc", "auto", "auto with a window")
"""Ways that do not heed protection."""

HEEDING = ("vm", "shared")

Start = Callable[..., Target]
T = TypeVar("T")
NOBODY = 65534


@dataclass
class Layout:
    """mem_layout.c: `area` has `size` known bytes; `readonly` and `hidden` have two pages each; two pages end at `end`, a hole."""

    target: Target
    area: int
    size: int
    readonly: int
    hidden: int
    end: int

    @property
    def pid(self) -> int:
        return self.target.pid

    def content(self, offset: int, length: int) -> bytes:
        """What the program wrote to its area."""
        index = np.arange(offset, offset + length)
        return ((index * 7 + index // 4096) % 251).astype(np.uint8).tobytes()

    def checksum(self, address: int, length: int) -> int:
        """FNV-1a of its own bytes, as the program sees them. It must run."""
        self.target.send(f"sum {address} {length}\n")
        return int(self.target.line())


def checksum(data: bytes) -> int:
    total = 1469598103934665603
    for byte in data:
        total = (total ^ byte) * 1099511628211 % 2**64
    return total


def layout_of(target: Target) -> Layout:
    return Layout(target, *(int(word) for word in target.line().split()))


@pytest.fixture
def layout(start: Start) -> Layout:
    return layout_of(start("mem_layout"))


def open_way(way: str, held: HeldProcess) -> Memory:
    """A memory of a held process by the name of the way."""
    return {
        "ptrace": lambda: PtraceMemory(held.pid),
        "proc": lambda: ProcMemory(held.pid),
        "vm": lambda: VmMemory(held.pid, stopped=True),
        "shared": lambda: SharedMemory(held, 1 << 20),
        "auto": lambda: AutoMemory(held),
        "auto with a window": lambda: AutoMemory(held, window=1 << 20),
    }[way]()


class Ways:
    """Opens memories of a process held for the test."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._stack = ExitStack()
        self._held: HeldProcess | None = None

    def open(self, way: str) -> Memory:
        if self._held is None:
            self._held = self._stack.enter_context(hold(self.layout.pid))
        memory = open_way(way, self._held)
        self._stack.callback(memory.close)
        return memory

    def release(self) -> None:
        """Give the process back."""
        self._stack.close()
        self._held = None


def in_child(action: Callable[[], T]) -> tuple[int, T | None]:
    """Run something in a child of ours: (its wait status, the result if it came so far). The result goes through a pipe."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            os.write(write_end, pickle.dumps(action()))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    return status, pickle.loads(content) if content else None


def as_ordinary_user(action: Callable[[], T]) -> T | None:
    """Run something in a child of ours that has given up all privileges; root only."""

    def drop_and_run() -> T:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return action()

    status, result = in_child(drop_and_run)
    assert status == 0
    return result


@pytest.fixture
def ways(layout: Layout) -> Iterator[Ways]:
    ways = Ways(layout)
    yield ways
    ways.release()
