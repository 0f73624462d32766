"""Memory policies of regions (mbind(2)): on which NUMA nodes their pages may lie.

/proc/PID/numa_maps lists them, but it walks all page tables (27 ms per GiB), so it is read while the process runs: when its map has changed
(most programs set the policy of memory that they have just mapped), if it had policies before, and else every few captures. It cannot
tell the policy of a region from that of the thread that it speaks for, so the process itself is asked about the regions that it names.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.capture.state.own import NODES
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.status import RegionPolicy
from vcsimg.kernel import mman, procfs
from vcsimg.kernel.syscalls import NR

_BELIEVED = 16
"""Captures after which it is read though the map is the same."""
_MODE = struct.Struct("<i")


class PoliciesReader:
    """Reads them for one process."""

    def __init__(self) -> None:
        self._maps = b""
        self._suspected: list[tuple[int, int]] = []
        self._age = 0
        self._asked: list[tuple[int, int, Call, Buffer, Buffer]] = []

    def prepare(self, pid: int, maps: bytes) -> None:
        """While it runs. `maps`: content of its map."""
        self._age += 1
        if maps == self._maps and not self._suspected and self._age < _BELIEVED:
            return
        self._maps, self._age = maps, 0
        text = b""
        with suppress(OSError):  # a kernel without NUMA
            text = procfs.read(procfs.speaker(pid), "numa_maps")
        starts = {int(line.split(b" ", 1)[0], 16) for line in text.splitlines() if line.split(b" ", 2)[1] != b"default"}
        self._suspected = [bounds for bounds in map(_bounds, maps.splitlines()) if bounds[0] in starts] if starts else []

    def ask(self, ask: Borrowings) -> None:
        """Note the questions."""
        self._asked = []
        for start, end in self._suspected:
            mode, nodes = ask.buffer(_MODE.size), ask.buffer(NODES // 8)
            call = ask.call(NR["get_mempolicy"], mode, nodes, NODES, start, mman.MPOL_F_ADDR)
            self._asked.append((start, end, call, mode, nodes))

    def finish(self, report: Report) -> None:
        """Write them into section status."""
        for start, end, call, mode, nodes in self._asked:
            if call.result is None:
                report.unsaved(f"memory policy at {start:#x}", "no system call could be borrowed to read it")
            elif call.result == 0:
                (number,) = _MODE.unpack(mode.data)
                if number != mman.MPOL_DEFAULT:
                    report.add("status", RegionPolicy(start, end, number & 0xFFFFFFFF, int.from_bytes(nodes.data, "little")))


def _bounds(line: bytes) -> tuple[int, int]:
    start, _, end = line.split(b" ", 1)[0].partition(b"-")
    return int(start, 16), int(end, 16)
