"""/proc/PID/pagemap: what is behind each page (Documentation/admin-guide/mm/pagemap.rst), one page or one range at a time.

Two ways to ask. Reading the file gives a 64-bit entry for each page: `read`. The PAGEMAP_SCAN ioctl (Linux 6.7) gives ranges of
pages that match, walks no further than page tables exist, and can write-protect what it reports in the same step: `scan`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

import numpy as np
import numpy.typing as npt

from vcsimg.image.units import PAGE_SHIFT

Words = npt.NDArray[np.uint64]

# Bits of an entry.
PM_PFN_MASK = (1 << 55) - 1
"""The page frame number; reads as 0 without CAP_SYS_ADMIN."""
PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
"""Mapped by this process alone: after a fork, the page has been written since by one of the two."""
PM_UFFD_WP = 1 << 57
PM_GUARD_REGION = 1 << 58
PM_FILE = 1 << 61
"""A page of a file, or shared anonymous memory."""
PM_SWAP = 1 << 62
PM_PRESENT = 1 << 63

# Categories of PAGEMAP_SCAN (linux/fs.h).
WPALLOWED = 1 << 0
WRITTEN = 1 << 1
FILE = 1 << 2
PRESENT = 1 << 3
SWAPPED = 1 << 4
PFNZERO = 1 << 5
HUGE = 1 << 6
SOFT_DIRTY = 1 << 7
GUARD = 1 << 8
ALL_POPULATED = FILE | PRESENT | SWAPPED
"""What tells populated pages from one another: to be asked for with `returned`."""

PM_SCAN_WP_MATCHING = 1 << 0
PM_SCAN_CHECK_WPASYNC = 1 << 1

_FEW_REGIONS = 1 << 6
_REGIONS = 1 << 12
_NO_REGIONS = np.empty((0, 3), np.uint64)


_ARGUMENT = struct.Struct("<12Q")
"""struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask,
return_mask."""
_PROGRESS, _START = struct.Struct("<3Q"), 16
"""Its start, end and walk_end, and where they stand."""

PAGEMAP_SCAN = 3 << 30 | _ARGUMENT.size << 16 | ord("f") << 8 | 16


class Scan:
    """One PAGEMAP_SCAN, made ready to be made: by make(), or by somebody else with the arguments of `call`, whose result goes to ranges()."""

    def __init__(
        self,
        start: int,
        end: int,
        *,
        allof: int = 0,
        anyof: int = 0,
        inverted: int = 0,
        returned: int = 0,
        flags: int = 0,
        room: int = _FEW_REGIONS,
    ) -> None:
        """As for scan(). `room`: ranges that one call can tell; what is left takes more calls."""
        self._end = end
        self._rest = (allof, anyof, inverted, returned, flags)
        self._vector = np.empty((room, 3), np.uint64)
        self._argument = bytearray(
            _ARGUMENT.pack(
                _ARGUMENT.size, flags, start, end, 0, self._vector.ctypes.data, room, 0, inverted, allof, anyof, returned
            )
        )

    @property
    def call(self) -> tuple[int, int]:
        """Request and argument of the ioctl."""
        return PAGEMAP_SCAN, ctypes.addressof(ctypes.c_char.from_buffer(self._argument))

    def make(self, fd: int) -> int:
        """The result of the ioctl. Raises OSError."""
        result: int = fcntl.ioctl(fd, PAGEMAP_SCAN, self._argument)
        return result

    def ranges(self, fd: int, result: int) -> Words:
        """What scan() returns. Raises OSError, as a negative `result` says."""
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        found, at = self._told(result)
        if at is None:
            return found
        parts = [found]
        allof, anyof, inverted, returned, flags = self._rest
        while at is not None:
            more = Scan(at, self._end, allof=allof, anyof=anyof, inverted=inverted, returned=returned, flags=flags, room=_REGIONS)
            found, at = more._told(more.make(fd))
            parts.append(found)
        return np.concatenate(parts)

    def _told(self, count: int) -> tuple[Words, int | None]:
        """Ranges that were found, and where to go on."""
        start, _, walked = _PROGRESS.unpack_from(self._argument, _START)
        return self._vector[:count], walked if start < walked < self._end else None


def scan(
    fd: int, start: int, end: int, *, allof: int = 0, anyof: int = 0, inverted: int = 0, returned: int = 0, flags: int = 0
) -> Words:
    """Ranges of pages within [start, end) that are in all categories of `allof` and in one of `anyof` (if not 0); a category in
    `inverted` stands for its opposite.

    Returns an array (n, 3): start, end, and those of the categories in `returned` that the pages have; touching ranges with the
    same categories are one. With `flags` PM_SCAN_WP_MATCHING they are write-protected in the same step. Raises OSError: ENOTTY or
    EINVAL from a kernel that lacks it, EPERM with PM_SCAN_CHECK_WPASYNC when part of it is not registered with userfaultfd.
    """
    if start >= end:
        return _NO_REGIONS
    first = Scan(start, end, allof=allof, anyof=anyof, inverted=inverted, returned=returned, flags=flags)
    return first.ranges(fd, first.make(fd))


def scan_written(fd: int, start: int, end: int) -> Words:
    """Ranges (n, 2) within [start, end) written since they were protected, and protect them again. All of [start, end) must be
    registered with userfaultfd for asynchronous write-protection, else PermissionError. Raises OSError."""
    first = written(start, end, room=_FEW_REGIONS)
    return np.ascontiguousarray(first.ranges(fd, first.make(fd))[:, :2])


def written(start: int, end: int, *, room: int) -> Scan:
    """The scan that scan_written() makes."""
    return Scan(start, end, allof=WRITTEN, returned=WRITTEN, flags=PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, room=room)


def read(fd: int, start: int, end: int) -> Words:
    """Entries of the pages in [start, end), one for each; 0 for pages beyond the address space. Raises OSError."""
    entries = np.zeros((end - start) >> PAGE_SHIFT, np.uint64)
    view = entries.view(np.uint8)
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:].data], (start >> PAGE_SHIFT) * 8 + done)
        if count == 0:
            break
        done += count
    return entries
