"""Memory policies of regions (mbind(2)): on which NUMA nodes their pages may lie.

/proc/PID/numa_maps lists them, but to do so it walks all page tables (27 ms per GiB) with the map locked. So the process itself is asked,
0.3 µs a region: about regions that are new in its map, as most programs set the policy of memory that they have just mapped; about
those that had policies; and about the others in turn, some at each capture.
"""

from __future__ import annotations

import struct

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.capture.state.own import NODES
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.status import RegionPolicy
from vcsimg.kernel import mman
from vcsimg.kernel.syscalls import NR

_IN_TURN = 16
_MOST = 8192
_MODE = struct.Struct("<i")

Bounds = tuple[int, int]
"""First address of a region, and the one behind its last."""


class PoliciesReader:
    """Reads them for one process."""

    def __init__(self) -> None:
        self._maps = b""
        self._regions: list[Bounds] = []
        self._answered: set[Bounds] = set()
        self._with_policy: list[Bounds] = []
        self._turn = 0
        self._asked: list[tuple[Bounds, Call, Buffer, Buffer]] = []

    def prepare(self, maps: bytes) -> None:
        """While it runs. `maps`: content of its map."""
        if maps != self._maps:
            self._maps, self._regions = maps, list(map(_bounds, maps.splitlines()))
            self._answered.intersection_update(self._regions)

    def ask(self, ask: Borrowings) -> None:
        """Note the questions."""
        new = (
            [bounds for bounds in self._regions if bounds not in self._answered] if len(self._answered) < len(self._regions) else []
        )
        turn = self._regions[self._turn : self._turn + _IN_TURN]
        self._turn = self._turn + _IN_TURN if self._turn + _IN_TURN < len(self._regions) else 0
        self._asked = []
        for start, end in list(dict.fromkeys([*self._with_policy, *new, *turn]))[:_MOST]:
            mode, nodes = ask.buffer(_MODE.size), ask.buffer(NODES // 8)
            call = ask.call(NR["get_mempolicy"], mode, nodes, NODES, start, mman.MPOL_F_ADDR)
            self._asked.append(((start, end), call, mode, nodes))

    def finish(self, report: Report) -> None:
        """Write them into section status."""
        self._with_policy = []
        for (start, end), call, mode, nodes in self._asked:
            if call.result is not None:
                self._answered.add((start, end))
            if call.result == 0:
                (number,) = _MODE.unpack(mode.data)
                if number != mman.MPOL_DEFAULT:
                    self._with_policy.append((start, end))
                    report.add("status", RegionPolicy(start, end, number & 0xFFFFFFFF, int.from_bytes(nodes.data, "little")))


def _bounds(line: bytes) -> Bounds:
    start, _, end = line.split(b" ", 1)[0].partition(b"-")
    return int(start, 16), int(end, 16)
