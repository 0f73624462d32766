"""Which parts of a region have content, and reading them chunk by chunk.

Debuggers look into the program's own files for memory that a core does not hold. So what an image does not know must be
left out of a core, never written as zeros; and zeros that it does know must be there, but need not cost disk space.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from vcsimg.errors import AccessError
from vcsimg.image.pages import ImageMemory, Memory
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Process
from vcsimg.image.units import PAGE_SIZE, PIECE_SHIFT, PIECE_SIZE, Range

Bytes = npt.NDArray[np.uint8]
LONG_ZEROS = 256 << 20
"""Zeros of this length and more become an extent of their own: programs reserve gigabytes, and sanitized ones terabytes."""


class Kind(Enum):
    DATA = "data"
    ZEROS = "zeros"
    """All zeros, known without reading."""
    ABSENT = "absent"
    """The image holds no content: unreadable, beyond the end of the file, or the file is not in the image."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A part [start, end) of one region, page-aligned."""

    region: Region
    start: int
    end: int
    kind: Kind

    def __len__(self) -> int:
        return self.end - self.start


class Content:
    """The content of one process, region by region, as a context manager. Raises AccessError at once if it has no memory."""

    def __init__(self, process: Process) -> None:
        if process.memory is None:
            raise AccessError(process.pid, 0, 0, 0)
        self.process = process
        self.memory: Memory = process.memory
        self.image = process.memory if isinstance(process.memory, ImageMemory) else None
        self._numbers = sorted(self.image.pieces.numbers()) if self.image else []
        self._buffers = [np.zeros(PIECE_SIZE, np.uint8) for _ in range(2)]
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="vcsimg-export")

    def extents(self, region: Region) -> Iterator[Extent]:
        """The extents of a region, ascending, together the whole of it."""
        position = region.start
        for start, end, kind in self._known(region):
            if start > position:
                yield Extent(region, position, start, Kind.ABSENT)
            yield Extent(region, start, end, kind)
            position = end
        if position < region.end:
            yield Extent(region, position, region.end, Kind.ABSENT)

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.shutdown()

    def chunks(self, extent: Extent) -> Iterator[tuple[int, memoryview | None]]:
        """(length, bytes) of consecutive chunks of a DATA extent, at most a piece each; None instead of bytes: zeros.

        The bytes are valid until the next chunk is asked for. Pages in the middle that cannot be read come as zeros. While the
        caller writes a chunk, the next one is read on a thread: unpacking it and writing this one take about as long.
        """
        spans = self._spans(extent)
        span = next(spans, None)
        ready = self._read_ahead(extent.region, span)
        while span is not None:
            start, end, _ = span
            data = ready.result() if ready is not None else None
            span = next(spans, None)
            ready = self._read_ahead(extent.region, span)
            yield end - start, data

    def _read_ahead(self, region: Region, span: tuple[int, int, bool] | None) -> Future[memoryview] | None:
        if span is None or span[2]:
            return None
        self._buffers.reverse()
        return self._ahead.submit(self._fill, self._buffers[0], region, span[0], span[1])

    def _spans(self, extent: Extent) -> Iterator[tuple[int, int, bool]]:
        """(start, end, zeros) of consecutive chunks."""
        position = extent.start
        while position < extent.end:
            end = min(extent.end, (position | PIECE_SIZE - 1) + 1)
            zeros = self._known_zeros(extent.region, position)
            if zeros:
                index = bisect_right(self._numbers, position >> PIECE_SHIFT)
                following = self._numbers[index] << PIECE_SHIFT if index < len(self._numbers) else extent.end
                end = min(extent.end, following)
            yield position, end, zeros
            position = end

    def _known(self, region: Region) -> Iterator[tuple[int, int, Kind]]:
        """The parts that have content, ascending."""
        if region.start in self.process.unreadable:
            return
        if self.image is None:
            yield region.start, region.end, Kind.DATA
            return
        sha256 = self._backing(region)
        if sha256 is None:
            yield from self._anonymous(region)
            return
        size = self.image.files.size(sha256)
        readable = 0 if size is None else max(0, ((size + PAGE_SIZE - 1) & -PAGE_SIZE) - region.offset)
        limit = min(region.end, region.start + readable)
        if limit > region.start:
            yield region.start, limit, Kind.DATA
        if limit < region.end:
            for start, end in self.image.own_pages(region):
                if end > limit:
                    yield max(start, limit), end, Kind.DATA

    def _anonymous(self, region: Region) -> Iterator[tuple[int, int, Kind]]:
        first = bisect_left(self._numbers, region.start >> PIECE_SHIFT)
        last = bisect_left(self._numbers, (region.end + PIECE_SIZE - 1) >> PIECE_SHIFT)
        if region.perms.startswith("---") and not any(self._has_own(region, number) for number in self._numbers[first:last]):
            return  # guard page or reserved address space: the process could not read it, and a core of the kernel leaves it out
        start = done = region.start
        for number in [*self._numbers[first:last], None]:
            low = region.end if number is None else max(region.start, number << PIECE_SHIFT)
            if low - done >= LONG_ZEROS:
                if done > start:
                    yield start, done, Kind.DATA
                yield done, low, Kind.ZEROS
                start = low
            done = region.end if number is None else min(region.end, (number + 1) << PIECE_SHIFT)
        if start < region.end:
            yield start, region.end, Kind.DATA

    def _has_own(self, region: Region, number: int) -> bool:
        """A page of the region in this piece has own content."""
        inside = region.range.intersect(Range(number << PIECE_SHIFT, (number + 1) << PIECE_SHIFT))
        if inside is None or self.image is None:
            return False
        return any(True for _ in self.image.own_pages(replace(region, start=inside.start, end=inside.end)))

    def _backing(self, region: Region) -> str | None:
        return self.image.backing_of(region) if self.image else None

    def _known_zeros(self, region: Region, address: int) -> bool:
        """The piece at an address has no page with own content, and nothing stands behind it."""
        if self.image is None or self._backing(region) is not None:
            return False
        index = bisect_left(self._numbers, address >> PIECE_SHIFT)
        return index == len(self._numbers) or self._numbers[index] != address >> PIECE_SHIFT

    def _fill(self, array: Bytes, region: Region, start: int, end: int) -> memoryview:
        array[: end - start].fill(0)
        buffer = array.data[: end - start]
        position = start
        while position < end:
            position += self._read(region, position, buffer[position - start :])
            if position < end:
                position = (position | PAGE_SIZE - 1) + 1
        return buffer

    def _read(self, region: Region, address: int, buffer: memoryview) -> int:
        """Fill `buffer`; returns the bytes up to the first that cannot be read."""
        if self.image is not None:
            return self.image.fill(region, address, buffer)
        try:
            data = self.memory.read(address, len(buffer))
        except AccessError as error:
            data = self.memory.read(address, error.done) if error.done else b""
        buffer[: len(data)] = data
        return len(data)
