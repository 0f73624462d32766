"""Reading the memory of a process piece by piece, whatever kind of memory it has."""

from __future__ import annotations

import numpy as np

from vcsimg.errors import AccessError
from vcsimg.image.pages import ImageMemory, Memory
from vcsimg.image.region import Region
from vcsimg.image.units import PIECE_SIZE


class Reader:
    """Reads ranges of at most a piece into a buffer of its own, used again for each read."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._buffer = np.zeros(PIECE_SIZE, np.uint8)

    def read(self, region: Region, start: int, end: int) -> memoryview:
        """Bytes [start, end) of one region, up to the first that has no content; valid until the next read."""
        if not isinstance(self.memory, ImageMemory):
            try:
                return memoryview(self.memory.read(start, end - start))
            except AccessError as error:
                return memoryview(self.memory.read(start, error.done))
        self._buffer[: end - start].fill(0)
        filled = self.memory.fill(region, start, self._buffer.data[: end - start])
        return self._buffer.data[:filled]
