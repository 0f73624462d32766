"""Ranges of pages: listing those that may have content, reading them, grouping them by piece.

A `Ranges` is an array (n, 2) of uint64: half-open, page-aligned, ascending, disjoint addresses.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vcsimg.image.pages import Bytes2D, Flags, Indexes
from vcsimg.image.region import Region
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.kernel import features, pagemap

Ranges = npt.NDArray[np.uint64]
PageNumbers = npt.NDArray[np.int64]
"""Addresses divided by PAGE_SIZE, ascending: shape (n,)."""

_PIECE_PAGES_SHIFT = PIECE_SHIFT - PAGE_SHIFT
_WINDOW = 1 << 30
_PAGEMAP_BATCH = 1 << 16

NO_RANGES: Ranges = np.zeros((0, 2), np.uint64)


def ranges_of(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges from pairs (start, end)."""
    return np.array(list(pairs), np.uint64).reshape(-1, 2)


def join(parts: Iterable[Ranges]) -> Ranges:
    """Several ranges as one, sorted; touching ones become one."""
    everything = np.concatenate([NO_RANGES, *parts])
    if len(everything) < 2:
        return everything
    everything = everything[np.argsort(everything[:, 0], kind="stable")]
    ends = np.maximum.accumulate(everything[:, 1])
    first = np.concatenate(([True], everything[1:, 0] > ends[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack((everything[first, 0], ends[last]))


def subtract(ranges: Ranges, holes: Ranges) -> Ranges:
    """What of `ranges` lies in none of `holes`."""
    out: list[tuple[int, int]] = []
    cuts = [(int(low), int(high)) for low, high in holes]
    index = 0
    for low, high in ((int(low), int(high)) for low, high in ranges):
        while index < len(cuts) and cuts[index][1] <= low:
            index += 1
        position, at = low, index
        while at < len(cuts) and cuts[at][0] < high:
            if cuts[at][0] > position:
                out.append((position, cuts[at][0]))
            position = max(position, cuts[at][1])
            at += 1
        if position < high:
            out.append((position, high))
    return ranges_of(out)


def page_numbers(ranges: Ranges) -> PageNumbers:
    """Numbers of all pages in the ranges."""
    return _expand(*(ranges.T >> np.uint64(PAGE_SHIFT)).astype(np.int64))


def pieces_of(ranges: Ranges) -> PageNumbers:
    """Numbers of all pieces that the ranges touch, each once."""
    low = (ranges[:, 0] >> np.uint64(PIECE_SHIFT)).astype(np.int64)
    high = ((ranges[:, 1] + np.uint64(PIECE_SIZE - 1)) >> np.uint64(PIECE_SHIFT)).astype(np.int64)
    return np.unique(_expand(low, high))


def touches(pieces: PageNumbers, ranges: Ranges) -> Flags:
    """Which of some pieces have an address in one of the ranges, (n,)."""
    if not len(ranges):
        return np.zeros(len(pieces), bool)
    base = pieces.astype(np.uint64) << np.uint64(PIECE_SHIFT)
    index = np.searchsorted(ranges[:, 1], base, side="right")
    found: Flags = (index < len(ranges)) & (ranges[np.minimum(index, len(ranges) - 1), 0] < base + np.uint64(PIECE_SIZE))
    return found


def _expand(low: PageNumbers, high: PageNumbers) -> PageNumbers:
    """All numbers of half-open ranges, in their order."""
    counts = high - low
    starts = np.cumsum(counts) - counts
    numbers: PageNumbers = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(low - starts, counts)
    return numbers


def batches(ranges: Ranges) -> Iterator[PageNumbers]:
    """Numbers of all pages in the ranges, a window of the address space at a time: memory stays bounded for any range, and no piece
    is cut in two."""
    index = 0
    position = 0
    while index < len(ranges):
        position = max(position, int(ranges[index, 0]))
        end = (position // _WINDOW + 1) * _WINDOW
        yield page_numbers(clip(ranges[index:], position, end))
        position = end
        index = int(np.searchsorted(ranges[:, 1], np.uint64(end), side="right"))


def by_piece(numbers: PageNumbers) -> Iterator[tuple[int, slice, Indexes]]:
    """(piece, where its pages stand in `numbers`, their numbers within the piece), ascending."""
    if not len(numbers):
        return
    pieces = numbers >> _PIECE_PAGES_SHIFT
    edges = np.concatenate(([0], np.flatnonzero(np.diff(pieces)) + 1, [len(numbers)]))
    within = (numbers & (PAGES_PER_PIECE - 1)).astype(np.uint16)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield int(pieces[low]), slice(low, high), within[low:high]


def populated(pagemap_fd: int, start: int, end: int, *, file: bool, swapped: bool = True) -> Ranges:
    """Ranges within [start, end) whose pages the process has: in memory or, if `swapped`, swapped out. `file`: only those that are
    no longer the file's. A page table that was never made costs nothing to look at."""
    if features.available("pagemap_scan"):
        wanted = pagemap.PRESENT | (pagemap.SWAPPED if swapped else 0)
        found = pagemap.scan(pagemap_fd, start, end, anyof=wanted, returned=pagemap.ALL_POPULATED)
        if file:
            kinds = found[:, 2]
            own = (kinds & np.uint64(pagemap.SWAPPED)) | (~kinds & np.uint64(pagemap.FILE))
            found = found[own != 0]
        return join([found[:, :2]])
    parts = []
    step = _PAGEMAP_BATCH << PAGE_SHIFT
    for low in range(start, end, step):
        entries = pagemap.read(pagemap_fd, low, min(end, low + step))
        pages = (entries & np.uint64(pagemap.PM_PRESENT | (pagemap.PM_SWAP if swapped else 0))) != 0
        if file:
            pages &= (entries & np.uint64(pagemap.PM_SWAP) != 0) | (entries & np.uint64(pagemap.PM_FILE) == 0)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], pages, [False])).astype(np.int8))).astype(np.uint64)
        parts.append((edges << np.uint64(PAGE_SHIFT)).reshape(-1, 2) + np.uint64(low))
    return join(parts)


def clip(ranges: Ranges, start: int, end: int) -> Ranges:
    """What of the ranges lies in [start, end)."""
    low = np.maximum(ranges[:, 0], np.uint64(start))
    high = np.minimum(ranges[:, 1], np.uint64(end))
    keep = low < high
    return np.column_stack((low[keep], high[keep]))


def read_pages(memory_fd: int, numbers: PageNumbers) -> tuple[Bytes2D, Flags]:
    """Contents of pages (n, 4096) from /proc/PID/mem, and which could be read (n,); rows that could not are zeros."""
    rows = np.empty((len(numbers), PAGE_SIZE), np.uint8)
    readable = np.ones(len(numbers), bool)
    if not len(numbers):
        return rows, readable
    view = memoryview(rows.reshape(-1).data)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(numbers) != 1) + 1, [len(numbers)])).tolist()
    starts = (numbers[edges[:-1]] << PAGE_SHIFT).tolist()
    preadv = os.preadv
    for low, high, address in zip(edges, edges[1:], starts, strict=False):
        buffer = view[low << PAGE_SHIFT : high << PAGE_SHIFT]
        try:
            done = preadv(memory_fd, (buffer,), address)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EFAULT):
                raise
            done = 0
        if done != len(buffer):
            _read_singly(memory_fd, numbers, rows, readable, low + (done >> PAGE_SHIFT), high)
    return rows, readable


def _read_singly(memory_fd: int, numbers: PageNumbers, rows: Bytes2D, readable: Flags, low: int, high: int) -> None:
    """Pages low … high - 1 of a run in which some page cannot be read."""
    for index in range(low, high):
        try:
            readable[index] = os.preadv(memory_fd, (rows[index].data,), int(numbers[index]) << PAGE_SHIFT) == PAGE_SIZE
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EFAULT):
                raise
            readable[index] = False
        if not readable[index]:
            rows[index] = 0


def file_extent(region: Region, size: int) -> int:
    """End of the part of a file region that has content: whole pages that begin before the end of the file."""
    last = (size + PAGE_SIZE - 1) >> PAGE_SHIFT << PAGE_SHIFT
    return min(region.end, region.start + max(0, last - region.offset))
