"""Which addresses a process can reach by itself: what its thread may copy without a fault."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from vcsimg.image.region import Region
from vcsimg.memory.protocol import RangeArray

_KERNELS = ("[vvar]", "[vvar_vclock]", "[vsyscall]")


class Spans:
    """Readable and writable addresses of a map, without those where access has effects of its own (devices, pages of the kernel)."""

    def __init__(self, regions: list[Region]) -> None:
        plain = [region for region in regions if not _special(region)]
        self._readable = _joined([region for region in plain if region.perms[0] == "r"])
        self._writable = _joined([region for region in plain if region.perms[:2] == "rw"])
        self._readable_edges = tuple(np.array([0, *edges], np.uint64) for edges in self._readable)

    def reach(self, address: int, length: int, *, store: bool) -> tuple[int, tuple[int, int]]:
        """How many bytes from `address` on can be reached without a gap, at most `length`; and the span that has them: [start, end)."""
        starts, ends = self._writable if store else self._readable
        index = bisect_right(starts, address) - 1
        if index < 0 or address >= ends[index]:
            return 0, (0, 0)
        return min(length, ends[index] - address), (starts[index], ends[index])

    def readable(self, ranges: RangeArray) -> int:
        """How many of the ranges, from the first on, can be read whole."""
        starts, ends = self._readable_edges
        index = np.searchsorted(starts, ranges[:, 0], side="right") - 1
        whole = ranges[:, 0] + ranges[:, 1] <= ends[index]
        whole |= ranges[:, 1] == 0
        return len(ranges) if whole.all() else int(whole.argmin())


def _special(region: Region) -> bool:
    if region.name in _KERNELS:
        return True
    return region.name.startswith("/dev/") and not region.name.startswith(("/dev/shm/", "/dev/zero"))


def _joined(regions: list[Region]) -> tuple[list[int], list[int]]:
    """Starts and ends of regions, adjacent ones as one; ascending."""
    starts: list[int] = []
    ends: list[int] = []
    for region in regions:
        if ends and ends[-1] == region.start:
            ends[-1] = region.end
        else:
            starts.append(region.start)
            ends.append(region.end)
    return starts, ends
