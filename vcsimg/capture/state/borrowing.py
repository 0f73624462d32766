"""Borrowed system calls, collected first and made all in one resume of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vcsimg.image.units import PAGE_SIZE, RemoteAddress
from vcsimg.process import Borrowed

_ALIGNMENT = 16
_WORDS = 7
"""The number of a system call, and six arguments."""


@dataclass(slots=True)
class Borrowings:
    """System calls that a thread of the target shall make. `results`: None as long as they were not made; `data`: what stands in the
    buffers afterwards."""

    calls: list[Call] = field(default_factory=list)
    size: int = 0
    results: Sequence[int] | None = None
    data: bytes = b""
    _words: npt.NDArray[np.uint64] | None = None
    _addresses: npt.NDArray[np.int64] | None = None
    _pages: npt.NDArray[np.int64] | None = None

    def buffer(self, size: int) -> Buffer:
        """Room of `size` bytes."""
        buffer = Buffer(self, self.size, size)
        self.size += (size + _ALIGNMENT - 1) & -_ALIGNMENT
        return buffer

    def call(self, number: int, *arguments: int | Buffer | Page) -> Call:
        """Note a system call."""
        call = Call(self, len(self.calls), number, arguments)
        self.calls.append(call)
        self._words = None
        return call

    def make_table(self) -> None:
        """Prepare for run(): to be called early, so that run() need not."""
        words = np.zeros((len(self.calls), _WORDS), np.uint64)
        addresses = []
        pages = []
        for row, call in enumerate(self.calls):
            words[row, 0] = call.number
            for column, argument in enumerate(call.arguments, 1):
                if isinstance(argument, Buffer):
                    words[row, column] = argument.offset
                    addresses.append(row * _WORDS + column)
                elif isinstance(argument, Page):
                    pages.append(row * _WORDS + column)
                else:
                    words[row, column] = argument % (1 << 64)
        self._words = words.reshape(-1)
        self._addresses = np.array(addresses, np.int64)
        self._pages = np.array(pages, np.int64)

    def run(self, borrowed: Borrowed, room: RemoteAddress) -> None:
        """Make the calls, with buffers from `room` on. Raises BorrowError when they cannot be made (one that fails says so itself)."""
        if self._words is None:
            self.make_table()
        assert self._words is not None
        words = self._words.copy()
        words[self._addresses] += np.uint64(room)
        words[self._pages] = np.uint64(room & -PAGE_SIZE)
        self.results = borrowed.batch_of(words.tobytes())
        self.data = borrowed.read(room, self.size) if self.size else b""


@dataclass(slots=True, eq=False)
class Buffer:
    """Zeroed room in the target for what a system call writes."""

    owner: Borrowings = field(repr=False)
    offset: int
    size: int

    @property
    def data(self) -> bytes:
        """What stands in it afterwards; nothing as long as the calls were not made."""
        return self.owner.data[self.offset : self.offset + self.size]


@dataclass(frozen=True, slots=True)
class Page:
    """Stands for the address of the page in which the buffers begin."""


@dataclass(slots=True, eq=False)
class Call:
    """A system call to be borrowed; a Buffer or Page among the arguments stands for its address."""

    owner: Borrowings = field(repr=False)
    index: int
    number: int
    arguments: Sequence[int | Buffer | Page]

    @property
    def result(self) -> int | None:
        """Negative errno when it failed; None if it was not made."""
        return None if self.owner.results is None else self.owner.results[self.index]
