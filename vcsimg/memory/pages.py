"""Many pages in few calls, leaving out those that cannot be read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vcsimg.errors import AccessError
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE
from vcsimg.memory.protocol import Memory, RangeArray
from vcsimg.memory.room import Room

_AT_ONCE = 1024
"""Pages in one call: as many ranges as process_vm_readv takes, and few enough that going on after a page that cannot be read is cheap."""

_FEW = 16
"""Pages; with so many, Python is quicker than numpy is to call: in the stop there mostly are so few."""


def read_pages(
    memory: Memory, numbers: npt.NDArray[np.int64], room: Room | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Contents (n, PAGE_SIZE) of pages, and which of them could be read (n,); rows that could not are zeros.

    `numbers`: addresses divided by PAGE_SIZE, ascending: shape (n,). `room`: where the rows come from. Raises ProcessChanged.
    """
    rows = np.empty((len(numbers), PAGE_SIZE), np.uint8) if room is None else room.rows(len(numbers))
    readable = np.ones(len(numbers), bool)
    first = 0
    while first < len(numbers):
        some = slice(first, first + _AT_ONCE)
        try:
            first += memory.read_many(_runs(numbers[some]), rows[some]) >> PAGE_SHIFT
        except AccessError as error:
            first += (error.earlier + error.done) >> PAGE_SHIFT
            readable[first] = False
            rows[first] = 0
            first += 1
    return rows, readable


def _runs(numbers: npt.NDArray[np.int64]) -> RangeArray:
    """Ranges of addresses: pages that follow one another are one."""
    if len(numbers) <= _FEW:
        found: list[list[int]] = []
        for number in numbers.tolist():
            if found and sum(found[-1]) == number:
                found[-1][1] += 1
            else:
                found.append([number, 1])
        return np.array(found, np.uint64) << np.uint64(PAGE_SHIFT)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(numbers) != 1) + 1, [len(numbers)]))
    return np.column_stack((numbers[edges[:-1]], np.diff(edges))).astype(np.uint64) << np.uint64(PAGE_SHIFT)
