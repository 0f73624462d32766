"""The last image's own pages, in a file without a name: the old content that deltas are made against.

It lies in the page cache, not on our heap, and is gone with us, whatever ends us (O_TMPFILE). One slot of PIECE_SIZE
a piece; which pages of a slot have own content is kept in memory, 2048 flags a piece.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vcsimg.capture.pages import PageNumbers, Ranges, pieces_of, within
from vcsimg.errors import NO_ROOM, DiskFull
from vcsimg.image.pages import Bytes2D, Flags, Indexes
from vcsimg.image.units import PAGE_SIZE, PAGES_PER_PIECE, PIECE_SIZE, WRITE_SIZE
from vcsimg.kernel.calls import Calls, call_in_a_row
from vcsimg.kernel.syscalls import NR
from vcsimg.memory import Room


class Shadow:
    """Pieces by number. A piece is known once it was written; an unknown one may be anything. `room`: where what is read goes, and what is to be
    compared with it."""

    def __init__(self, folder: Path, room: Room) -> None:
        self.room = room
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
        return self.read_all([(number, pages)])

    def read_all(self, parts: Sequence[tuple[int, Indexes]]) -> Bytes2D:
        """The same of many pieces in one step: parts (number, pages (n,)), result (sum of n, 4096)."""
        own = np.concatenate([self._own[number][pages] for number, pages in parts])
        rows = self.room.rows(len(own))
        rows[~own] = 0
        addresses = rows.ctypes.data + np.arange(len(own)) * PAGE_SIZE
        calls = _calls("pread64", self._file.fileno(), addresses[own], self._offsets(parts)[own], PAGES_PER_PIECE)
        results = call_in_a_row(calls)
        for _, fd, address, size, offset, *_ in calls[results != calls[:, 3].astype(np.int64)].tolist():
            # A signal came between.
            got = os.preadv(fd, [_memory(address, size)], offset)
            assert got == size
        return rows

    def write(self, number: int, pages: Indexes, rows: Bytes2D, own: Flags) -> None:
        """Set pages (n,) of a piece to rows (n, 4096), of which `own` (n,) have own content. Makes an unknown piece known: its
        other pages have none. Raises DiskFull; the piece is then unknown."""
        self.write_all([(number, pages, rows, own)])

    def write_all(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> None:
        """The same of many pieces, each once, in one step. Raises DiskFull; all of them are then unknown."""
        known = {number: self._own.pop(number, None) for number, *_ in parts}
        for number, _, _, own in parts:
            if number not in self._slots and own.any():
                self._slots[number] = self._free.pop() if self._free else self._end
                self._end = max(self._end, self._slots[number] + 1)
        parts = [(number, pages, np.ascontiguousarray(rows), own) for number, pages, rows, own in parts]
        if parts:
            self._put(parts)
        for number, pages, _, own in parts:
            flags = known[number]
            if flags is None:
                flags = np.zeros(PAGES_PER_PIECE, bool)
            flags[pages] = own
            self._own[number] = flags

    def _put(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> None:
        wanted = np.concatenate([own for *_, own in parts])
        addresses = np.concatenate([rows.ctypes.data + np.arange(len(rows)) * PAGE_SIZE for _, _, rows, _ in parts])
        offsets = self._offsets([(number, pages) for number, pages, _, _ in parts])
        calls = _calls("pwrite64", self._file.fileno(), addresses[wanted], offsets[wanted], WRITE_SIZE // PAGE_SIZE)
        results = call_in_a_row(calls)
        try:
            for _, fd, address, size, offset, *_ in calls[results != calls[:, 3].astype(np.int64)].tolist():
                # A signal came between, or there is no more room.
                data = _memory(address, size)
                while data:
                    done = os.pwrite(fd, data, offset)
                    data, offset = data[done:], offset + done
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(str(self._folder), error.errno) from None
            raise

    def _offsets(self, parts: Sequence[tuple[int, Indexes]]) -> npt.NDArray[np.int64]:
        """Where pages of pieces stand in the file, (sum of n,), if they have own content."""
        return np.concatenate(
            [self._slots.get(number, 0) * PIECE_SIZE + pages.astype(np.int64) * PAGE_SIZE for number, pages in parts]
        )

    def forget(self, number: int) -> None:
        """Make a piece unknown. Its slot is used again."""
        self._own.pop(number, None)
        slot = self._slots.pop(number, None)
        if slot is not None:
            self._free.append(slot)


def _calls(name: str, fd: int, addresses: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], most: int) -> Calls:
    """System calls that read or write pages at addresses (n,) of ours and offsets (n,) of a file: one for those side by side in both, up to `most`."""
    numbers = np.arange(len(addresses))
    starts = np.ones(len(addresses), bool)
    starts[1:] = (np.diff(addresses) != PAGE_SIZE) | (np.diff(offsets) != PAGE_SIZE)
    starts |= (numbers - np.maximum.accumulate(np.where(starts, numbers, 0))) % most == 0
    first = np.flatnonzero(starts)
    calls = np.zeros((len(first), 7), np.uint64)
    calls[:, 0] = NR[name]
    calls[:, 1] = fd
    calls[:, 2] = addresses[first]
    calls[:, 3] = np.diff(first, append=len(addresses)) * PAGE_SIZE
    calls[:, 4] = offsets[first]
    return calls


def _memory(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")
