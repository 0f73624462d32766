"""Where the bytes of shared memory lie, and which pages differ from the mapped file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

import numpy as np

from vcsimg.capture.pages import PageNumbers, Ranges, file_extent, ranges_of
from vcsimg.capture.regions import Kind, Plan
from vcsimg.image.pages import Bytes2D, Flags, any_content
from vcsimg.image.region import Region
from vcsimg.image.snapshot import FileContent
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE


def shared_data(pid: int, region: Region) -> Ranges:
    """The parts of a shared region that hold data. Reading a hole of a tmpfs file through the process would fill it with a page,
    so holes are asked for (lseek(2), SEEK_DATA) if the file can be opened; else it is the whole region."""
    paths = [f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}"]
    if region.has_file and not region.deleted:
        paths.append(f"/proc/{pid}/root{region.name}")
    elif region.has_file:
        paths += _descriptors(pid)
    for path in paths:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                continue  # opening a device can have effects
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            facts = os.fstat(fd)
            if facts.st_ino == region.inode:
                return _data(fd, region, facts.st_size)
        except OSError:
            continue  # a device: it knows no holes
        finally:
            os.close(fd)
    return ranges_of([(region.start, region.end)])


def _descriptors(pid: int) -> list[str]:
    """Descriptors of memfds and deleted files: other kinds must not be opened again, that can have effects."""
    paths = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if target.startswith("/") and target.endswith(" (deleted)"):
            paths.append(path)
    return paths


def _data(fd: int, region: Region, size: int) -> Ranges:
    end = file_extent(region, size)
    pairs = []
    position = region.offset
    stop = region.offset + (end - region.start)
    while position < stop:
        try:
            low = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        high = os.lseek(fd, low, os.SEEK_HOLE)
        low, high = low & -PAGE_SIZE, min(stop, (high + PAGE_SIZE - 1) & -PAGE_SIZE)
        if low >= stop:
            break
        pairs.append((region.start + max(low, region.offset) - region.offset, region.start + high - region.offset))
        position = high
    return ranges_of(pairs)


class OwnPages:
    """Tells which pages have own content: not zeros in most regions, not the file's bytes in file regions."""

    def __init__(self, plan: Plan, contents: Mapping[int, FileContent]) -> None:
        """`contents`: of file regions, by their start."""
        self._regions = [region for region in plan.of(Kind.FILE) if region.start in contents]
        self._starts = np.array([region.start >> PAGE_SHIFT for region in self._regions], np.int64)
        self._ends = np.array([region.end >> PAGE_SHIFT for region in self._regions], np.int64)
        self._contents = contents

    def __call__(self, numbers: PageNumbers, rows: Bytes2D) -> Flags:
        own = any_content(rows)
        if not self._regions:
            return own
        index = np.searchsorted(self._ends, numbers, side="right")
        inside = np.flatnonzero((index < len(self._ends)) & (self._starts[np.minimum(index, len(self._ends) - 1)] <= numbers))
        for at in inside.tolist():
            region = self._regions[int(index[at])]
            offset = region.offset + (int(numbers[at]) << PAGE_SHIFT) - region.start
            data = self._contents[region.start].read(offset, PAGE_SIZE).ljust(PAGE_SIZE, b"\0")
            own[at] = rows[at].tobytes() != data
        return own
