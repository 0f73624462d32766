"""Which pages of two images differ. What cannot differ is never read: the work follows the change, not the size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vcsimg.history.changes import PageChange
from vcsimg.history.reading import Reader
from vcsimg.history.regions import overlaps
from vcsimg.image.pages import ImageMemory, differ
from vcsimg.image.region import Region, backing_of
from vcsimg.image.snapshot import Process
from vcsimg.image.units import PAGE_SIZE, PIECE_SHIFT


def changed_pages(a: Process, b: Process, numbers: Iterable[int] | None = None) -> Iterator[PageChange]:
    """Pages that both processes have, with other bytes, ascending. Pages that only one has are told by its regions.

    `numbers`: of the pieces in which own content can differ (more is harmless); None: all are compared. Where the files behind
    a region differ, all of it is compared in any case. Raises DamagedImage.
    """
    if a.memory is None or b.memory is None:
        return
    if numbers is None and isinstance(a.memory, ImageMemory) and isinstance(b.memory, ImageMemory):
        numbers = {*a.memory.pieces.numbers(), *b.memory.pieces.numbers()}
    named = np.array(sorted(set(numbers)), np.int64) if numbers is not None else None
    reader = Reader(a.memory), Reader(b.memory)
    known = a.backing(), b.backing()
    for start, end, one, two in overlaps(a.regions, b.regions):
        if one.start in a.unreadable or two.start in b.unreadable:
            continue
        same = _same_backing(one, two, backing_of(one, known[0]), backing_of(two, known[1]))
        pieces: Iterable[int] = range(start >> PIECE_SHIFT, (end - 1 >> PIECE_SHIFT) + 1)
        if same and named is not None:
            first, last = np.searchsorted(named, [start >> PIECE_SHIFT, (end - 1 >> PIECE_SHIFT) + 1])
            pieces = named[first:last].tolist()
        for number in pieces:
            low, high = max(start, number << PIECE_SHIFT), min(end, (number + 1) << PIECE_SHIFT)
            yield from _compare(b.pid, two, low, reader[0].read(one, low, high), reader[1].read(two, low, high))


def _same_backing(one: Region, two: Region, ours: str | None, theirs: str | None) -> bool:
    """Pages without own content read the same in both."""
    return ours == theirs and (ours is None or one.start - one.offset == two.start - two.offset)


def _compare(pid: int, region: Region, start: int, before: memoryview, after: memoryview) -> Iterator[PageChange]:
    size = min(len(before), len(after)) // PAGE_SIZE * PAGE_SIZE
    old, new = (np.frombuffer(side[:size], np.uint8).reshape(-1, PAGE_SIZE) for side in (before, after))
    for page in np.flatnonzero(differ(old, new)).tolist():
        part = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
        yield PageChange(pid, start + part.start, region, bytes(before[part]), bytes(after[part]))
