"""Ranges of pages: listing those that may have content, grouping them by piece.

A `Ranges` is an array (n, 2) of uint64: half-open, page-aligned, ascending, disjoint addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vcsimg.image.pages import Flags, Indexes
from vcsimg.image.region import Region
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.kernel import features, pagemap

Ranges = npt.NDArray[np.uint64]
PageNumbers = npt.NDArray[np.int64]
"""Addresses divided by PAGE_SIZE, ascending: shape (n,)."""

_PIECE_PAGES_SHIFT = PIECE_SHIFT - PAGE_SHIFT
_WINDOW = 1 << 30
_GAP = 4 << 20
_TOP = (1 << 64) - PAGE_SIZE
_PAGEMAP_BATCH = 1 << 16
_FEW = 16
"""Ranges, or pages; with so many, Python is quicker than numpy is to call: in the stop there mostly are so few."""

NO_RANGES: Ranges = np.zeros((0, 2), np.uint64)


def ranges_of(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges from pairs (start, end)."""
    return np.array(list(pairs), np.uint64).reshape(-1, 2)


def ranges_of_pages(numbers: PageNumbers) -> Ranges:
    """Ranges from page numbers, ascending and each once."""
    if not len(numbers):
        return NO_RANGES
    cut = np.flatnonzero(np.diff(numbers) != 1) + 1
    low, high = numbers[np.concatenate(([0], cut))], numbers[np.concatenate((cut - 1, [len(numbers) - 1]))] + 1
    return np.column_stack((low, high)).astype(np.uint64) << np.uint64(PAGE_SHIFT)


def join(parts: Iterable[Ranges]) -> Ranges:
    """Several ranges as one, sorted; touching ones become one."""
    some = [part for part in parts if len(part)]
    if not some:
        return NO_RANGES
    everything = np.concatenate(some) if len(some) > 1 else some[0]
    if len(everything) == 1:
        return everything
    if len(everything) <= _FEW:
        return _few_joined(everything.tolist())
    everything = everything[np.argsort(everything[:, 0], kind="stable")]
    ends = np.maximum.accumulate(everything[:, 1])
    first = np.concatenate(([True], everything[1:, 0] > ends[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack((everything[first, 0], ends[last]))


def _few_joined(pairs: list[list[int]]) -> Ranges:
    pairs.sort()
    joined = [pairs[0]]
    for pair in pairs[1:]:
        if pair[0] <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], pair[1])
        else:
            joined.append(pair)
    return np.array(joined, np.uint64)


def intersect(first: Ranges, second: Ranges) -> Ranges:
    """What lies in both."""
    if not len(first) or not len(second):
        return NO_RANGES
    low = np.searchsorted(second[:, 1], first[:, 0], side="right")
    high = np.maximum(low, np.searchsorted(second[:, 0], first[:, 1], side="left"))
    here = np.repeat(np.arange(len(first)), high - low)
    there = _expand(low, high)
    return np.column_stack((np.maximum(first[here, 0], second[there, 0]), np.minimum(first[here, 1], second[there, 1])))


def subtract(ranges: Ranges, holes: Ranges) -> Ranges:
    """What of `ranges` lies in none of `holes`."""
    edges = np.concatenate(([np.uint64(0)], holes.reshape(-1), [np.uint64(_TOP)])).reshape(-1, 2)
    return intersect(ranges, edges[edges[:, 0] < edges[:, 1]])


def clusters(ranges: Ranges) -> Ranges:
    """Fewer, wider ranges that cover all of them: those with small gaps are one. A call of the kernel for each costs more than the
    gaps do."""
    if len(ranges) < 2:
        return ranges
    cut = np.flatnonzero(ranges[1:, 0] - ranges[:-1, 1] > np.uint64(_GAP)) + 1
    return np.column_stack((ranges[np.concatenate(([0], cut)), 0], ranges[np.concatenate((cut - 1, [len(ranges) - 1])), 1]))


def size_of(ranges: Ranges) -> int:
    """Bytes in the ranges."""
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def page_numbers(ranges: Ranges) -> PageNumbers:
    """Numbers of all pages in the ranges."""
    if len(ranges) <= _FEW and (pairs := ranges.tolist()) and sum(high - low for low, high in pairs) <= _FEW << PAGE_SHIFT:
        return np.array([number for low, high in pairs for number in range(low >> PAGE_SHIFT, high >> PAGE_SHIFT)], np.int64)
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


def inside(numbers: PageNumbers, ranges: Ranges) -> Flags:
    """Which of some pages lie in one of the ranges, (n,)."""
    if not len(ranges):
        return np.zeros(len(numbers), bool)
    addresses = numbers.astype(np.uint64) << np.uint64(PAGE_SHIFT)
    index = np.searchsorted(ranges[:, 1], addresses, side="right")
    found: Flags = (index < len(ranges)) & (ranges[np.minimum(index, len(ranges) - 1), 0] <= addresses)
    return found


def within(numbers: PageNumbers, ranges: Ranges) -> PageNumbers:
    """Those of some pages that lie in one of the ranges."""
    return numbers[inside(numbers, ranges)]


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


def populated(pagemap_fd: int, ranges: Ranges, *, file: bool, swapped: bool = True, spans: list[list[int]] | None = None) -> Ranges:
    """What of the ranges the process has pages for: in memory or, if `swapped`, swapped out. `file`: only pages that are no longer
    the file's. A page table that was never made costs nothing to look at. `spans`: clusters(ranges), if known."""
    look = _scanned if features.available("pagemap_scan") else _read
    found = [look(pagemap_fd, low, high, file, swapped) for low, high in spans or clusters(ranges).tolist()]
    return intersect(join(found), ranges)


class OwnFilePages:
    """What of file regions is no longer the file's. Looked up twice for each capture, and the second time, when the process is stopped,
    mostly nothing is new: then nothing is computed."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._spans = clusters(ranges).tolist()
        self._seen: list[bytes] | None = None
        self.own = NO_RANGES  # in memory or swapped out
        self.present = NO_RANGES  # in memory

    def look(self, pagemap_fd: int) -> bool:
        """Look it up; false if all is as it was."""
        if not features.available("pagemap_scan"):
            self.own, self.present = (populated(pagemap_fd, self._ranges, file=True, swapped=swapped) for swapped in (True, False))
            return True
        wanted = pagemap.PRESENT | pagemap.SWAPPED
        parts = [pagemap.scan(pagemap_fd, *span, anyof=wanted, returned=pagemap.ALL_POPULATED) for span in self._spans]
        seen = [part.tobytes() for part in parts]
        if seen == self._seen:
            return False
        self._seen = seen
        found = np.concatenate([np.zeros((0, 3), np.uint64), *parts])
        swapped = found[:, 2] & np.uint64(pagemap.SWAPPED) != 0
        present = ~swapped & (found[:, 2] & np.uint64(pagemap.FILE) == 0)
        self.own, self.present = (intersect(join([found[which, :2]]), self._ranges) for which in (swapped | present, present))
        return True


def _scanned(pagemap_fd: int, start: int, end: int, file: bool, swapped: bool) -> Ranges:
    wanted = pagemap.PRESENT | (pagemap.SWAPPED if swapped else 0)
    found = pagemap.scan(pagemap_fd, start, end, anyof=wanted, returned=pagemap.ALL_POPULATED)
    if file:
        kinds = found[:, 2]
        found = found[(kinds & np.uint64(pagemap.SWAPPED)) | (~kinds & np.uint64(pagemap.FILE)) != 0]
    return found[:, :2]


def _read(pagemap_fd: int, start: int, end: int, file: bool, swapped: bool) -> Ranges:
    parts = [NO_RANGES]
    step = _PAGEMAP_BATCH << PAGE_SHIFT
    for low in range(start, end, step):
        entries = pagemap.read(pagemap_fd, low, min(end, low + step))
        pages = (entries & np.uint64(pagemap.PM_PRESENT | (pagemap.PM_SWAP if swapped else 0))) != 0
        if file:
            pages &= (entries & np.uint64(pagemap.PM_SWAP) != 0) | (entries & np.uint64(pagemap.PM_FILE) == 0)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], pages, [False])).astype(np.int8))).astype(np.uint64)
        parts.append((edges << np.uint64(PAGE_SHIFT)).reshape(-1, 2) + np.uint64(low))
    return np.concatenate(parts)


def clip(ranges: Ranges, start: int, end: int) -> Ranges:
    """What of the ranges lies in [start, end)."""
    low = np.maximum(ranges[:, 0], np.uint64(start))
    high = np.minimum(ranges[:, 1], np.uint64(end))
    keep = low < high
    return np.column_stack((low[keep], high[keep]))


def file_extent(region: Region, size: int) -> int:
    """End of the part of a file region that has content: whole pages that begin before the end of the file."""
    last = (size + PAGE_SIZE - 1) >> PAGE_SHIFT << PAGE_SHIFT
    return min(region.end, region.start + max(0, last - region.offset))
