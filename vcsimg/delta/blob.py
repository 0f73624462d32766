"""The bytes of a keyframe or delta blob: docs/image-format.md draws them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vcsimg.delta import codec
from vcsimg.delta.lines import LINES, PATCH, unpack_patch
from vcsimg.delta.units import PAGE, PAGES, QUARTER, Flags, Indexes, Rows, ShortHashes
from vcsimg.delta.words import LANES, WORDS, Places, Words, xor_small
from vcsimg.errors import DamagedImage, HostileImage, NewerFormat

MAGIC = b"VXD"
VERSION = 1
_HEADER = struct.Struct("<3sBBBHQQQ")
_SMALL = 16 << 10
_PAGE_BITS = 0x7FF
_NOT_BEFORE = 0x4000
_NOT_AFTER = 0x8000


@dataclass(frozen=True, slots=True)
class Delta:
    """A keyframe or delta, its payload still coded.

    address of the piece; state `before` and `after`; pages (n,) ascending; had (n,), has (n,): the page has own content
    before, after; hashes (m,): short ones, of the m pages that have it after, in order. `few`: which words of the piece change, and what they
    are XORed with, where these are few and known without decoding.
    """

    address: int
    before: int
    after: int
    pages: Indexes
    had: Flags
    has: Flags
    hashes: ShortHashes
    codec: int
    payload: bytes | memoryview
    few: tuple[Places, Words] | None = None

    @property
    def is_key(self) -> bool:
        """It leads from the empty piece."""
        return self.before == 0 and not self.had.any()

    @property
    def is_patch(self) -> bool:
        """It leads forward only, from the contents before."""
        return self.codec in (PATCH, LINES)

    @property
    def has_words(self) -> bool:
        """It is coded by words: what changes can be had without all that does not."""
        return self.codec in (WORDS, LANES)

    def rows(self, where: str) -> Rows:
        """The XOR of the pages' contents, (n, 4096), read-only; not of a patch. Raises DamagedImage, HostileImage."""
        return codec.unpack(self.codec, self.payload, len(self.pages), where)

    def after_rows(self, old: Rows, where: str) -> Rows:
        """What it makes of the contents of its pages, both (n, 4096). Raises DamagedImage, HostileImage."""
        return unpack_patch(self.codec, self.payload, old, where) if self.is_patch else old ^ self.rows(where)

    def apply_to(self, data: Rows, where: str, *, zeros: bool = False) -> None:
        """Bring the contents of a piece (2048, 4096) forward; `zeros`: those of an empty one. Raises DamagedImage, HostileImage."""
        if self.is_patch:
            data[self.pages] = unpack_patch(self.codec, self.payload, data[self.pages], where)
        else:
            codec.xor_into(self.codec, self.payload, self.pages, data, where, zeros=zeros)

    def bytes(self) -> bytes:
        """The blob."""
        header = _HEADER.pack(MAGIC, VERSION, self.codec, 0, len(self.pages), self.address, self.before, self.after)
        return b"".join((header, format_index(self.pages, self.had, self.has), self.hashes.astype("<u4").tobytes(), self.payload))


def apply_all(deltas: Sequence[Delta], data: Rows, where: str) -> None:
    """Apply deltas in their order to the contents of an empty piece (2048, 4096). Raises DamagedImage, HostileImage."""
    small: list[tuple[int, bytes | memoryview, Indexes]] = []
    for delta in deltas:
        if delta.has_words and len(delta.payload) < _SMALL and not delta.is_key:
            small.append((delta.codec, delta.payload, delta.pages))  # XORs can wait, and go together
            continue
        if small and delta.is_patch:
            xor_small(small, data, where)
            small.clear()
        delta.apply_to(data, where, zeros=delta.is_key)
    if small:
        xor_small(small, data, where)


def xor_each(deltas: Sequence[Delta], rows: Rows, where: str) -> None:
    """XOR deltas that are coded by words, each of pieces of their own, into the contents of their pages: all of these in their order, (n, 4096)
    C-contiguous. Raises DamagedImage, HostileImage."""
    ends = np.cumsum([len(delta.pages) for delta in deltas]).tolist()
    numbers = np.arange(ends[-1], dtype=np.intp)
    parts = [(delta.codec, delta.payload, numbers[end - len(delta.pages) : end]) for delta, end in zip(deltas, ends, strict=True)]
    xor_small(parts, rows, where)


def format_index(pages: Indexes, had: Flags, has: Flags) -> bytes:
    """The index of a blob: pages and flags (n,)."""
    if had.all() and has.all():
        return pages.astype("<u2", copy=False).tobytes()
    return (pages | ~had * np.uint16(_NOT_BEFORE) | ~has * np.uint16(_NOT_AFTER)).astype("<u2").tobytes()


def heads_of(delta: Delta, blob: bytes) -> tuple[bytes, bytes]:
    """Index and hashes, as they stand in a delta's blob."""
    middle = _HEADER.size + 2 * len(delta.pages)
    return blob[_HEADER.size : middle], blob[middle : middle + 4 * len(delta.hashes)]


def parse_index(data: bytes | memoryview) -> tuple[Indexes, Flags, Flags]:
    """Pages, had and has, each (n,), of an index; unchecked."""
    index = np.frombuffer(data, "<u2").astype(np.uint16, copy=False)
    return index & np.uint16(_PAGE_BITS), (index & _NOT_BEFORE) == 0, (index & _NOT_AFTER) == 0


def parse(blob: bytes | memoryview, where: str) -> Delta:
    """A blob's parts, checked. `where` names it in errors. Raises HostileImage, NewerFormat, DamagedImage."""
    return parse_all([blob], where)[0]


def parse_all(blobs: Sequence[bytes | memoryview], where: str) -> list[Delta]:
    """The parts of several blobs, as parse() gives them: their indexes are checked together, since most blobs of a chain are so small that
    numpy's calls would take most of the time."""
    views, heads, starts = [], [], [0]
    for blob in blobs:
        view = memoryview(blob)
        head = _head(view, where)
        views.append(view)
        heads.append(head)
        starts.append(starts[-1] + head.pages)
    index = b"".join([view[_HEADER.size : _HEADER.size + 2 * head.pages] for view, head in zip(views, heads, strict=True)])
    pages, had, has = parse_index(index)
    _check_index(index, pages, had, has, starts, where)
    held = np.add.reduceat(has, starts[:-1], dtype=np.intp).tolist()
    deltas = []
    for place, (view, head, count) in enumerate(zip(views, heads, held, strict=True)):
        first, last = starts[place], starts[place + 1]
        position = _HEADER.size + 2 * head.pages
        if len(view) < position + 4 * count:
            raise DamagedImage(where, f"cut off after {len(view)} bytes")
        hashes = np.frombuffer(view, "<u4", count, position).astype(np.uint32, copy=False)
        payload = view[position + 4 * count :]
        parts = pages[first:last], had[first:last], has[first:last]
        deltas.append(Delta(head.address, head.before, head.after, *parts, hashes, head.codec, payload))
    return deltas


class _Head(NamedTuple):
    codec: int
    pages: int
    address: int
    before: int
    after: int


def _head(view: memoryview, where: str) -> _Head:
    """What stands before a blob's index."""
    if len(view) < _HEADER.size:
        raise DamagedImage(where, f"cut off after {len(view)} bytes")
    magic, version, number, zero, count, address, before, after = _HEADER.unpack_from(view)
    if magic != MAGIC or zero:
        raise HostileImage(where, "not a piece's keyframe or delta")
    if version != VERSION:
        raise NewerFormat(where, version, VERSION)
    if not 0 < count <= PAGES or address % (PAGE * QUARTER):
        raise HostileImage(where, f"{count} pages at {address:#x}")
    if len(view) < _HEADER.size + 2 * count:
        raise DamagedImage(where, f"cut off after {len(view)} bytes")
    return _Head(number, count, address, before, after)


def _check_index(data: bytes, pages: Indexes, had: Flags, has: Flags, starts: list[int], where: str) -> None:
    """Check the indexes of blobs, which stand one behind the other and begin at `starts`."""
    ascending = pages[1:] > pages[:-1]
    ascending[np.array(starts[1:-1], np.intp) - 1] = True
    if (np.frombuffer(data, "<u2") & ~np.uint16(_PAGE_BITS | _NOT_BEFORE | _NOT_AFTER)).any() or not ascending.all():
        raise HostileImage(where, "its index is not in order")
    if not (had | has).all():
        raise HostileImage(where, "it names a page that never had own content")
