"""The truth that captures are held against: every byte of a stopped process, read plainly from /proc/PID/mem."""

from __future__ import annotations

import os

from vcsimg.errors import AccessError
from vcsimg.image.region import RegionMap
from vcsimg.image.snapshot import Process
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import procfs

Truth = dict[int, bytes]
"""Bytes of whole pages by their address; a page that cannot be read is absent."""


def read_everything(pid: int, memory_fd: int) -> tuple[RegionMap, dict[int, bytes]]:
    """The map and the bytes of all regions, by their start, up to the first page of each that cannot be read. The process must be
    stopped."""
    regions = RegionMap(procfs.read_maps(pid))
    contents = {}
    for region in regions:
        if region.end > 1 << 63:
            continue
        size = region.end - region.start
        buffer = bytearray(size)
        done = 0
        while done < size:
            try:
                got = os.preadv(memory_fd, [memoryview(buffer)[done:]], region.start + done)
            except OSError:
                break
            if got == 0:
                break
            done += got
        contents[region.start] = bytes(buffer[:done])
    return regions, contents


def assert_same(process: Process, truth: tuple[RegionMap, dict[int, bytes]]) -> None:
    """The captured process has the map and every byte of the truth."""
    regions, contents = truth
    assert [(r.start, r.end, r.perms, r.offset, r.inode, r.name) for r in process.regions] == [
        (r.start, r.end, r.perms, r.offset, r.inode, r.name) for r in regions
    ]
    assert process.memory is not None
    for region in regions:
        expected = contents.get(region.start, b"")
        if region.start in process.unreadable or not expected:
            continue
        try:
            found = process.memory.read(region.start, len(expected))
        except AccessError as error:
            raise AssertionError(f"{region.line()}: {error}") from error
        if found != expected:
            wrong = [at for at in range(0, len(expected), PAGE_SIZE) if found[at : at + PAGE_SIZE] != expected[at : at + PAGE_SIZE]]
            raise AssertionError(f"{region.line()}: {len(wrong)} pages differ, the first at {region.start + wrong[0]:#x}")
