"""/proc/PID/pagemap: what is behind each page (Documentation/admin-guide/mm/pagemap.rst), one page or one range at a time.

Two ways to ask. Reading the file gives a 64-bit entry for each page: `read`. The PAGEMAP_SCAN ioctl (Linux 6.7) gives ranges of
pages that match, walks no further than page tables exist, and can write-protect what it reports in the same step: `scan`.
"""

from __future__ import annotations

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
_WALK_END = 32
"""Where in it `walk_end` stands."""
_WORD = struct.Struct("<Q")

PAGEMAP_SCAN = 3 << 30 | _ARGUMENT.size << 16 | ord("f") << 8 | 16


def scan(
    fd: int, start: int, end: int, *, allof: int = 0, anyof: int = 0, inverted: int = 0, returned: int = 0, flags: int = 0
) -> Words:
    """Ranges of pages within [start, end) that are in all categories of `allof` and in one of `anyof` (if not 0); a category in
    `inverted` stands for its opposite.

    Returns an array (n, 3): start, end, and those of the categories in `returned` that the pages have; touching ranges with the
    same categories are one. With `flags` PM_SCAN_WP_MATCHING they are write-protected in the same step. Raises OSError: ENOTTY or
    EINVAL from a kernel that lacks it, EPERM with PM_SCAN_CHECK_WPASYNC when part of it is not registered with userfaultfd.
    """
    parts: list[Words] = []
    regions = _FEW_REGIONS
    while start < end:
        vector = np.empty((regions, 3), np.uint64)
        argument = bytearray(
            _ARGUMENT.pack(_ARGUMENT.size, flags, start, end, 0, vector.ctypes.data, regions, 0, inverted, allof, anyof, returned)
        )
        count = fcntl.ioctl(fd, PAGEMAP_SCAN, argument)
        if count:
            parts.append(vector[:count])
        (walked,) = _WORD.unpack_from(argument, _WALK_END)
        if walked <= start:
            break
        start = walked
        regions = _REGIONS
    if not parts:
        return _NO_REGIONS
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def scan_written(fd: int, start: int, end: int) -> Words:
    """Ranges (n, 2) within [start, end) written since they were protected, and protect them again. All of [start, end) must be
    registered with userfaultfd for asynchronous write-protection, else PermissionError. Raises OSError."""
    found = scan(fd, start, end, allof=WRITTEN, returned=WRITTEN, flags=PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC)
    return np.ascontiguousarray(found[:, :2])


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
