"""Where bytes occur in an image."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from vcsimg.history.reading import Reader
from vcsimg.image.pages import ImageMemory
from vcsimg.image.region import Region, backing_of
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.image.units import PAGE_SIZE, PIECE_SHIFT


def search(
    snapshot: Snapshot, pattern: bytes, *, include: Callable[[Region], bool] = lambda region: True
) -> Iterator[tuple[int, int]]:
    """(pid, address) of every occurrence of `pattern`, overlapping ones too, in the regions that `include` accepts, ascending.

    An occurrence may reach over the end of a region into the next one. Zeros that the image does not hold as content are not
    looked through, so a pattern of nothing but zeros is found only next to content. Raises ValueError for an empty pattern,
    DamagedImage.
    """
    if not pattern:
        raise ValueError("nothing to search for")
    for process in snapshot.processes:
        for address in _search_process(process, pattern, include):
            yield process.pid, address


def _search_process(process: Process, pattern: bytes, include: Callable[[Region], bool]) -> Iterator[int]:
    if process.memory is None:
        return
    matcher = _Matcher(pattern)
    reader = Reader(process.memory)
    numbers = sorted(process.memory.pieces.numbers()) if isinstance(process.memory, ImageMemory) else None
    backing = process.backing()
    for region in process.regions:
        if region.start in process.unreadable or not include(region):
            continue
        if numbers is None or backing_of(region, backing) is not None:
            pieces = list(region.range.pieces())
        else:
            first, last = (bisect_left(numbers, number) for number in (region.range.pieces()[0], region.range.pieces()[-1] + 1))
            pieces = numbers[first:last]
        position = region.start
        for number in pieces:
            low, high = max(region.start, number << PIECE_SHIFT), min(region.end, (number + 1) << PIECE_SHIFT)
            yield from matcher.zeros(position, low - position)
            yield from _search_piece(matcher, reader, region, low, high)
            position = high
        if numbers is not None and backing_of(region, backing) is None:
            yield from matcher.zeros(position, region.end - position)


def _search_piece(matcher: _Matcher, reader: Reader, region: Region, start: int, end: int) -> Iterator[int]:
    while start < end:
        data = bytes(reader.read(region, start, end))
        yield from matcher.data(start, data)
        start = (start + len(data) & -PAGE_SIZE) + PAGE_SIZE  # after the page that could not be read


class _Matcher:
    """Finds a pattern in bytes that come in parts, ascending."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._overlap = len(pattern) - 1
        self._tail = b""
        self._position = 0

    def data(self, address: int, data: bytes) -> Iterator[int]:
        if address != self._position:
            self._tail = b""
        text = self._tail + data
        base = address - len(self._tail)
        found = text.find(self._pattern)
        while found >= 0:
            yield base + found
            found = text.find(self._pattern, found + 1)
        self._tail = text[max(0, len(text) - self._overlap) :]
        self._position = address + len(data)

    def zeros(self, address: int, length: int) -> Iterator[int]:
        """The same for a run of zeros, of which only the two ends are looked at."""
        if length:
            yield from self.data(address, bytes(min(length, self._overlap)))
            if length > self._overlap:
                self._tail = bytes(self._overlap)
                self._position = address + length
