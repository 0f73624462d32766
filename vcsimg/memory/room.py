"""Room for pages that are read again and again.

New memory is cleared by the kernel before it is written to: for many megabytes that takes as long as to copy pages into it. So the memory of arrays
that nobody refers to any more is kept, for those that are asked for next.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vcsimg.image.units import PAGE_SIZE

_LEAST = 1 << 20
"""Bytes; for less, malloc(3) keeps what is free itself."""
_MOST = 128 << 20
_SELDOM = 20.0
"""Seconds; to clear new memory that seldom costs next to nothing."""


@dataclass(eq=False)
class _Block:
    """`lent`: the array that has it, or had. `used`: lent since the last turn."""

    memory: npt.NDArray[np.uint8]
    lent: weakref.ref[npt.NDArray[np.uint8]] | None = None
    used: bool = True

    @property
    def is_free(self) -> bool:
        return self.lent is None or self.lent() is None

    def lend(self, count: int) -> npt.NDArray[np.uint8]:
        # All arrays that are made of this one have it as their base, and let it live as long as they do.
        flat = np.frombuffer(self.memory.data, np.uint8, count * PAGE_SIZE)
        self.lent = weakref.ref(flat)
        self.used = True
        return flat.reshape(count, PAGE_SIZE)


class Room:
    """Keeps at most `most` bytes. Any thread may ask for some."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._blocks: list[_Block] = []
        self._lock = threading.Lock()
        self._turned = time.monotonic()

    def rows(self, count: int) -> npt.NDArray[np.uint8]:
        """An array (count, PAGE_SIZE) that holds anything, as numpy.empty() gives. Its memory is used again when no array refers to it."""
        size = count * PAGE_SIZE
        if size < _LEAST:
            return np.empty((count, PAGE_SIZE), np.uint8)
        with self._lock:
            free = [block for block in self._blocks if block.is_free]
            fitting = [block for block in free if block.memory.nbytes >= size]
            if fitting:
                return min(fitting, key=lambda block: block.memory.nbytes).lend(count)
            # Room for somewhat more: what is written from capture to capture is not equally much.
            new = min(size + (size >> 2), max(size, self._most))
            kept = sum(block.memory.nbytes for block in self._blocks)
            for block in free:
                if kept + new > self._most:
                    self._blocks.remove(block)
                    kept -= block.memory.nbytes
            if kept + new > self._most:
                return np.empty((count, PAGE_SIZE), np.uint8)
            block = _Block(np.empty(new, np.uint8))
            self._blocks.append(block)
            return block.lend(count)

    def chosen(self, rows: npt.NDArray[np.uint8], which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """The rows (m, PAGE_SIZE) that flags (n,), or places (m,), choose of `rows` (n, PAGE_SIZE); these themselves, if they are all."""
        if which.dtype == bool:
            if which.all():
                return rows
            which = np.flatnonzero(which)
        # The places are right: to look at them first, numpy would copy everything twice.
        return np.take(rows, which, axis=0, out=self.rows(len(which)), mode="clip")

    @property
    def is_seldom_used(self) -> bool:
        """Whether the last turn is long ago."""
        return time.monotonic() - self._turned > _SELDOM

    def turn(self) -> None:
        """Give back what was not used since the last turn; everything, when that is long ago."""
        seldom = self.is_seldom_used
        self._turned = time.monotonic()
        with self._lock:
            self._blocks = [block for block in self._blocks if block.used and not (seldom and block.is_free)]
            for block in self._blocks:
                block.used = not block.is_free
