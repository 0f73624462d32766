"""The last image's own pages, in a file without a name: the old content that deltas are made against.

It lies in the page cache, not on our heap, and is gone with us, whatever ends us (O_TMPFILE). One slot of PIECE_SIZE
a piece; which pages of a slot have own content is kept in memory, 2048 flags a piece.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vcsimg.capture.pages import PageNumbers, Ranges, pieces_of, within
from vcsimg.errors import DiskFull
from vcsimg.image.pages import Bytes2D, Flags, Indexes
from vcsimg.image.units import PAGE_SIZE, PAGES_PER_PIECE, PIECE_SIZE, WRITE_SIZE
from vcsimg.kernel.calls import call_in_a_row
from vcsimg.kernel.syscalls import NR

_FEW = 32
"""Pages; with so many, Python is quicker than numpy is to call."""


class Shadow:
    """Pieces by number. A piece is known once it was written; an unknown one may be anything."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._folder = folder
        self._slots: dict[int, int] = {}
        self._own: dict[int, Flags] = {}
        self._free: list[int] = []
        self._end = 0

    def close(self) -> None:
        self._file.close()

    def __contains__(self, number: int) -> bool:
        return number in self._own

    @property
    def is_empty(self) -> bool:
        """Whether no piece is known."""
        return not self._own

    def numbers(self) -> Iterable[int]:
        """Numbers of the known pieces."""
        return self._own.keys()

    def own(self, number: int) -> Flags:
        """Which pages of a known piece have own content, (2048,). Not to be changed."""
        return self._own[number]

    def own_pages(self, ranges: Ranges) -> PageNumbers:
        """Numbers of the pages in the ranges with own content, ascending."""
        parts = [
            np.flatnonzero(self._own[number]) + number * PAGES_PER_PIECE
            for number in pieces_of(ranges).tolist()
            if number in self._own
        ]
        return within(np.concatenate([np.zeros(0, np.int64), *parts]), ranges)

    def read(self, number: int, pages: Indexes) -> Bytes2D:
        """Contents of pages of a known piece, (n, 4096); zeros where a page has none of its own."""
        rows = np.zeros((len(pages), PAGE_SIZE), np.uint8)
        own = self._own[number][pages]
        if not own.any():
            return rows
        base = self._slots[number] * PIECE_SIZE
        view = memoryview(rows.reshape(-1).data)
        for first, last in _runs(pages, own):
            buffer = view[first * PAGE_SIZE : last * PAGE_SIZE]
            got = os.preadv(self._file.fileno(), [buffer], base + int(pages[first]) * PAGE_SIZE)
            assert got == len(buffer)
        return rows

    def read_all(self, parts: Sequence[tuple[int, Indexes]]) -> Bytes2D:
        """The same of many pieces in one step: parts (number, pages (n,)), result (sum of n, 4096)."""
        counts = [len(pages) for _, pages in parts]
        pages = np.concatenate([pages for _, pages in parts]).astype(np.int64)
        own = np.concatenate([self._own[number][pages] for number, pages in parts])
        slots = np.repeat(np.array([self._slots.get(number, 0) for number, _ in parts], np.int64), counts)
        offsets = slots * PIECE_SIZE + pages * PAGE_SIZE
        rows = np.empty((len(pages), PAGE_SIZE), np.uint8)
        rows[~own] = 0
        wanted = np.flatnonzero(own)
        breaks = np.flatnonzero((np.diff(wanted) != 1) | (np.diff(offsets[wanted]) != PAGE_SIZE)) + 1
        first = wanted[np.concatenate(([0], breaks))[: len(wanted)]]
        last = wanted[np.concatenate((breaks, [len(wanted)]))[: len(wanted)] - 1]
        calls = np.zeros((len(first), 7), np.uint64)
        calls[:, 0] = NR["pread64"]
        calls[:, 1] = self._file.fileno()
        calls[:, 2] = rows.ctypes.data + first * PAGE_SIZE
        calls[:, 3] = (last + 1 - first) * PAGE_SIZE
        calls[:, 4] = offsets[first]
        results = call_in_a_row(calls)
        for call in np.flatnonzero(results != calls[:, 3].astype(np.int64)).tolist():
            # A signal came between.
            buffer = rows[first[call] : last[call] + 1].reshape(-1).data
            got = os.preadv(self._file.fileno(), [buffer], int(offsets[first[call]]))
            assert got == len(buffer)
        return rows

    def write(self, number: int, pages: Indexes, rows: Bytes2D, own: Flags) -> None:
        """Set pages (n,) of a piece to rows (n, 4096), of which `own` (n,) have own content. Makes an unknown piece known: its
        other pages have none. Raises DiskFull; the piece is then unknown."""
        flags = self._own.pop(number, None)
        if flags is None:
            flags = np.zeros(PAGES_PER_PIECE, bool)
        if own.any():
            slot = self._slots.get(number)
            if slot is None:
                slot = self._slots[number] = self._free.pop() if self._free else self._end
                self._end = max(self._end, slot + 1)
            base = slot * PIECE_SIZE
            view = memoryview(np.ascontiguousarray(rows).reshape(-1).data)
            try:
                for first, last in _runs(pages, own):
                    data = view[first * PAGE_SIZE : last * PAGE_SIZE]
                    position = base + int(pages[first]) * PAGE_SIZE
                    while data:
                        done = os.pwrite(self._file.fileno(), data[:WRITE_SIZE], position)
                        data, position = data[done:], position + done
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DiskFull(str(self._folder)) from None
                raise
        flags[pages] = own
        self._own[number] = flags

    def forget(self, number: int) -> None:
        """Make a piece unknown. Its slot is used again."""
        self._own.pop(number, None)
        slot = self._slots.pop(number, None)
        if slot is not None:
            self._free.append(slot)


def _runs(pages: Indexes, wanted: Flags) -> Iterator[tuple[int, int]]:
    """Half-open ranges of indexes into `pages` where the wanted pages lie side by side."""
    if len(pages) <= _FEW:
        yield from _short_runs(pages.tolist(), wanted.tolist())
        return
    indexes = np.flatnonzero(wanted)
    breaks = np.flatnonzero((np.diff(indexes) != 1) | (np.diff(pages[indexes].astype(np.int32)) != 1)) + 1
    edges = [0, *breaks.tolist(), len(indexes)]
    for low, high in itertools.pairwise(edges):
        if low < high:
            yield int(indexes[low]), int(indexes[high - 1]) + 1


def _short_runs(pages: list[int], wanted: list[bool]) -> Iterator[tuple[int, int]]:
    first = 0
    for index, page in enumerate(pages):
        if index > first and (not wanted[index] or page != pages[index - 1] + 1):
            yield first, index
            first = index
        if not wanted[index]:
            first = index + 1
    if first < len(pages):
        yield first, len(pages)
