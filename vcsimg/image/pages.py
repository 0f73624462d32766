"""Memory of an image: pieces of pages with own content, over the backing of the regions.

address ──▶ region ──▶ own content?  ──yes──▶ page of the piece
                          └──no──▶ backing: the mapped file's bytes, or zeros
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vcsimg.errors import AccessError
from vcsimg.image.region import Region, RegionMap, backing_of
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE

Bytes2D = npt.NDArray[np.uint8]
"""Page contents: shape (n, PAGE_SIZE)."""
Flags = npt.NDArray[np.bool_]
"""One flag a page: shape (n,)."""
Indexes = npt.NDArray[np.uint16]
"""Page numbers within a piece, ascending: shape (n,), each 0 … 2047."""
_GLANCE = 64 << 10
"""Bytes. Who reads so few of a piece may want no more of it."""
_GLANCED = 64


def any_content(rows: Bytes2D) -> Flags:
    """Which rows (n, PAGE_SIZE), C-contiguous, are not zeros all over. Most that are not tell by their first word."""
    words = rows.view(np.uint64)
    found: Flags = words[:, 0] != 0
    if not found.all():
        rest = np.flatnonzero(~found)
        found[rest] = np.bitwise_or.reduce(words if len(rest) == len(words) else words[rest], axis=1) != 0
    return found


def differ(rows: Bytes2D, others: Bytes2D) -> Flags:
    """Which rows (n, PAGE_SIZE) are not equal, (n,); both C-contiguous."""
    # By words, which is quicker.
    found: Flags = (rows.view(np.uint64) != others.view(np.uint64)).any(axis=1)
    return found


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole piece. `data[i]` is zeros where `own[i]` is False.

    Shapes: own (2048,), data (2048, 4096).
    """

    own: Flags
    data: Bytes2D

    @classmethod
    def empty(cls) -> Piece:
        return cls(np.zeros(PAGES_PER_PIECE, bool), np.zeros((PAGES_PER_PIECE, PAGE_SIZE), np.uint8))


@dataclass(frozen=True, slots=True)
class PieceChange:
    """What may have changed in one piece since the capture that it is relative to. Pages not named have not changed.

    pages (n,) ascending; new (n, 4096), rows of zeros where not own; own (n,): the page has own content now.
    old (n, 4096) and old_own (n,): what it was; both None when the capturer does not know and the store must look it up.
    A named page that turns out to be the same costs nothing but time.
    """

    number: int
    pages: Indexes
    new: Bytes2D
    own: Flags
    old: Bytes2D | None = None
    old_own: Flags | None = None


class PieceSource(Protocol):
    """Where pieces come from: a repository, a live process, a test's dictionary."""

    def numbers(self) -> Iterable[int]:
        """Numbers of all pieces in which a page has own content, ascending."""

    def piece(self, number: int) -> Piece | None:
        """A piece, or None when no page of it has own content. Raises DamagedImage."""

    def pages(self, number: int, first: int, last: int) -> Piece | None:
        """Pages [first, last) of a piece alone: own (n,), data (n, 4096); None when no page of the piece has own content. Raises DamagedImage."""
        piece = self.piece(number)
        return Piece(piece.own[first:last], piece.data[first:last]) if piece is not None else None


class FileSource(Protocol):
    """Contents of mapped files by sha256 (hexadecimal)."""

    def size(self, sha256: str) -> int | None:
        """Size in bytes, or None when the content is not there."""

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), fewer at the end of the file. Raises DamagedImage."""


class Memory(Protocol):
    """Anything whose bytes can be read by the captured process's addresses."""

    def read(self, address: int, length: int) -> bytes:
        """Bytes [address, address + length). Raises AccessError, naming how much could be read, if any of it has no content."""


class DictPieces(PieceSource):
    """Pieces from a dictionary."""

    def __init__(self, pieces: Mapping[int, Piece]) -> None:
        self._pieces = dict(pieces)

    def numbers(self) -> Iterable[int]:
        return sorted(self._pieces)

    def piece(self, number: int) -> Piece | None:
        return self._pieces.get(number)


class NoFiles:
    """A file source without files."""

    def size(self, sha256: str) -> int | None:
        return None

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        return b""


class ImageMemory:
    """The memory of a process in an image.

    `backing` gives, for (device, inode) of a region, the sha256 of the file's content. `unreadable`: starts of regions
    that had no readable content at capture time (guard pages, vvar, device maps).
    Keeps the last few pieces: neighbouring reads are cheap.
    """

    def __init__(
        self,
        regions: RegionMap,
        pieces: PieceSource,
        backing: Mapping[tuple[str, int], str],
        files: FileSource,
        unreadable: frozenset[int] = frozenset(),
        *,
        cached_pieces: int = 4,
    ) -> None:
        self.regions = regions
        self.pieces = pieces
        self.files = files
        self.backing = backing
        self.unreadable = unreadable
        self._cached = cached_pieces
        self._cache: dict[int, Piece | None] = {}
        self._glanced: dict[int, None] = {}
        """The last pieces of which only some pages were read."""

    def read(self, address: int, length: int) -> bytes:
        out = bytearray(length)
        done = 0
        while done < length:
            region = self.regions.find(address + done)
            if region is None:
                raise AccessError(None, address, length, done)
            size = min(region.end - (address + done), length - done)
            filled = self.fill(region, address + done, memoryview(out)[done : done + size])
            done += filled
            if filled < size:
                raise AccessError(None, address, length, done)
        return bytes(out)

    def fill(self, region: Region, address: int, buffer: memoryview) -> int:
        """Fill `buffer` from `address` on, all within `region`. Returns the bytes up to the first without content.

        `buffer` must be writable, and zeros before.
        """
        if region.start in self.unreadable:
            return 0
        end = address + len(buffer)
        position = address
        while position < end:
            number = position >> PIECE_SHIFT
            stop = min(end, (number + 1) << PIECE_SHIFT)
            filled = self._fill_piece(region, number, position, stop, buffer[position - address : stop - address])
            if filled < stop - position:
                return position - address + filled
            position = stop
        return len(buffer)

    def own_pages(self, region: Region) -> Iterator[tuple[int, int]]:
        """Runs [start, end) of addresses in the region whose pages have own content."""
        for number in region.range.pieces():
            piece = self._piece(number)
            if piece is None:
                continue
            base = number << PIECE_SHIFT
            first = max(0, region.start - base) >> PAGE_SHIFT
            last = min(PIECE_SIZE, region.end - base) >> PAGE_SHIFT
            marks = np.flatnonzero(np.diff(np.concatenate(([False], piece.own[first:last], [False])).astype(np.int8)))
            for start, stop in marks.reshape(-1, 2):
                yield base + ((first + int(start)) << PAGE_SHIFT), base + ((first + int(stop)) << PAGE_SHIFT)

    def backing_of(self, region: Region) -> str | None:
        """sha256 of the file content behind a region; None: zeros."""
        return backing_of(region, self.backing)

    def _piece(self, number: int) -> Piece | None:
        try:
            piece = self._cache.pop(number)
        except KeyError:
            piece = self.pieces.piece(number)
        self._cache[number] = piece
        if len(self._cache) > self._cached:
            del self._cache[next(iter(self._cache))]
        return piece

    def _read(self, number: int, start: int, end: int) -> tuple[Piece | None, int]:
        """A piece, or of one that is read for the first time in small the pages of [start, end) alone; and the address that it begins at."""
        base = number << PIECE_SHIFT
        if end - start > _GLANCE or number in self._cache or number in self._glanced:
            return self._piece(number), base
        self._glanced[number] = None
        if len(self._glanced) > _GLANCED:
            del self._glanced[next(iter(self._glanced))]
        first, last = (start - base) >> PAGE_SHIFT, (end - base + PAGE_SIZE - 1) >> PAGE_SHIFT
        return self.pieces.pages(number, first, last), base + (first << PAGE_SHIFT)

    def _fill_piece(self, region: Region, number: int, start: int, end: int, buffer: memoryview) -> int:
        piece, base = self._read(number, start, end)
        sha256 = self.backing_of(region)
        if sha256 is None:
            if piece is not None:
                buffer[:] = piece.data.reshape(-1)[start - base : end - base].data
            return end - start
        filled = self._fill_from_file(region, sha256, start, end, buffer)
        if piece is None or not piece.own.any():
            return filled
        first, last = (start - base) >> PAGE_SHIFT, (end - base + PAGE_SIZE - 1) >> PAGE_SHIFT
        flat = piece.data.reshape(-1)
        for page in np.flatnonzero(piece.own[first:last]):
            low = max(start, base + ((first + int(page)) << PAGE_SHIFT))
            high = min(end, base + ((first + int(page) + 1) << PAGE_SHIFT))
            buffer[low - start : high - start] = flat[low - base : high - base].data
            if low <= start + filled < high:
                filled = high - start
        return filled

    def _fill_from_file(self, region: Region, sha256: str, start: int, end: int, buffer: memoryview) -> int:
        """Bytes of the file; zeros to the end of its last page; nothing beyond (the process would get SIGBUS there)."""
        size = self.files.size(sha256)
        if size is None:
            return 0
        offset = region.offset + (start - region.start)
        data = self.files.read(sha256, offset, min(end - start, max(0, size - offset)))
        buffer[: len(data)] = data
        last = (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)
        return max(0, min(end - start, last - offset))
