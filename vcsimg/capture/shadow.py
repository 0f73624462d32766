"""The last image's own pages, in a file without a name: the old content that deltas are made against.

It lies in the page cache, not on our heap, and is gone with us, whatever ends us (O_TMPFILE). One slot of PIECE_SIZE
a piece; which pages of a slot have own content is kept in memory, 2048 flags a piece. What the last capture has copied is used where it is
(`keep()`), and gets into the file only when a later one has no copy of it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vcsimg.capture.copies import Copies
from vcsimg.capture.pages import PageNumbers, Ranges, by_piece, pieces_of, within
from vcsimg.errors import NO_ROOM, DiskFull
from vcsimg.image.pages import Bytes2D, Flags, Indexes, differ
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
        self._copies: list[Copies] = []

    def close(self) -> None:
        self._copies.clear()
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
        return self._read([(number, pages)])[0]

    def differences(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> list[tuple[Flags, Bytes2D]]:
        """Pages (n,) of known pieces, compared with what is known of them: (number, pages, rows (n, 4096), which have own content (n,)), each. Gives
        which of them (n,) are not as they were, and the rows (m, 4096) that were there in the place of these."""
        found = self._in_copies(parts)
        rest = [index for index in range(len(parts)) if index not in found]
        for index, old in zip(rest, self._read([parts[index][:2] for index in rest]), strict=True):
            number, pages, rows, own = parts[index]
            changed = differ(rows, old) | (own != self._own[number][pages])
            found[index] = changed, self.room.chosen(old, changed)
        return [found[index] for index in range(len(parts))]

    def _in_copies(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> dict[int, tuple[Flags, Bytes2D]]:
        """The same of those parts of which there are copies, nearly all side by side, by their places among the parts."""
        result: dict[int, tuple[Flags, Bytes2D]] = {}
        for index, (number, pages, rows, own) in enumerate(parts if self._copies else ()):
            # The first are most, and most parts are of these.
            copies = self._copies[0]
            found = copies.compare(pages + np.int64(number * PAGES_PER_PIECE), rows)
            if found is None:
                continue
            places, here, changed = found
            changed |= own != self._own[number][pages]
            apart = ~here
            if not apart.any():
                result[index] = changed, self.room.chosen(copies.rows, places[changed])
                continue
            others = self.read(number, pages[apart])
            changed[apart] |= differ(rows[apart], others)
            old = self.room.chosen(copies.rows, places[changed])
            old[apart[changed]] = others[changed[apart]]
            result[index] = changed, old
        return result

    def _read(self, parts: Sequence[tuple[int, Indexes]]) -> list[Bytes2D]:
        """Rows (n, 4096) of pages (n,) of many known pieces, in one step: some from copies, the others from the file."""
        if not parts:
            return []
        numbers = np.concatenate([pages + np.int64(number * PAGES_PER_PIECE) for number, pages in parts])
        wanted = np.concatenate([self._own[number][pages] for number, pages in parts])
        rows = self.room.rows(len(wanted))
        rows[~wanted] = 0
        for copies in self._copies:
            places, here = copies.find(numbers)
            here &= wanted
            rows[here] = copies.rows[places[here]]
            wanted &= ~here
        addresses = rows.ctypes.data + np.arange(len(wanted)) * PAGE_SIZE
        calls = _calls("pread64", self._file.fileno(), addresses[wanted], self._offsets(parts)[wanted], PAGES_PER_PIECE)
        results = call_in_a_row(calls)
        for _, fd, address, size, offset, *_ in calls[results != calls[:, 3].astype(np.int64)].tolist():
            # A signal came between.
            got = os.preadv(fd, [_memory(address, size)], offset)
            assert got == size
        ends = itertools.accumulate(len(pages) for _, pages in parts)
        return [rows[end - len(pages) : end] for end, (_, pages) in zip(ends, parts, strict=True)]

    def keep(self, copies: Sequence[Copies]) -> None:
        """Hold current copies, of known pieces, as they are, the most first; they must stay so. What was kept before and has no newer copy goes to
        the file. Raises DiskFull; its pieces are then unknown."""
        before, self._copies = self._copies, list(copies)
        for new in copies:
            numbers, own = new.numbers[new.current], new.own[new.current]
            for number, some, pages in by_piece(numbers):
                self._own[number][pages] = own[some]
        for old in before:
            left = old.current & old.unwritten
            for new in copies:
                places, here = new.find(old.numbers)
                new.unwritten[places[here & left]] = True
                left &= ~here
            where = np.flatnonzero(left)
            self.write_all(
                [
                    (number, pages, old.rows[where[some]], old.own[where[some]])
                    for number, some, pages in by_piece(old.numbers[where])
                ]
            )

    def write(self, number: int, pages: Indexes, rows: Bytes2D, own: Flags) -> None:
        """Set pages (n,) of a piece to rows (n, 4096), of which `own` (n,) have own content. Makes an unknown piece known: its
        other pages have none. Raises DiskFull; the piece is then unknown."""
        self.write_all([(number, pages, rows, own)])

    def write_all(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> None:
        """The same of many pieces, each once, in one step. Raises DiskFull; all of them are then unknown."""
        known = {number: self._own.pop(number, None) for number, *_ in parts}
        self._drop([(number, None if known[number] is None else pages) for number, pages, *_ in parts])
        try:
            self._put(parts)
        except DiskFull:
            self._drop([(number, None) for number, *_ in parts])
            raise
        for number, pages, _, own in parts:
            flags = known[number]
            if flags is None:
                flags = np.zeros(PAGES_PER_PIECE, bool)
            flags[pages] = own
            self._own[number] = flags

    def _put(self, parts: Sequence[tuple[int, Indexes, Bytes2D, Flags]]) -> None:
        """Write to the file what is own content. Raises DiskFull."""
        if not parts:
            return
        for number, _, _, own in parts:
            if number not in self._slots and own.any():
                self._slots[number] = self._free.pop() if self._free else self._end
                self._end = max(self._end, self._slots[number] + 1)
        parts = [(number, pages, np.ascontiguousarray(rows), own) for number, pages, rows, own in parts]
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

    def _drop(self, parts: Sequence[tuple[int, Indexes | None]]) -> None:
        """Use no copies of pages of pieces, or of whole pieces, any more."""
        for copies in self._copies:
            for number, pages in parts:
                first = number * PAGES_PER_PIECE
                if pages is None:
                    copies.drop_between(first, first + PAGES_PER_PIECE)
                else:
                    copies.drop(pages + np.int64(first))

    def forget(self, number: int) -> None:
        """Make a piece unknown. Its slot is used again."""
        self._drop([(number, None)])
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
