"""Which pages were written: userfaultfd write-protection, asynchronous, and PAGEMAP_SCAN (Linux 6.7).

The kernel marks a page when it is written, and never asks us (UFFD_FEATURE_WP_ASYNC); the scan lists the marked pages and
protects them again in one step. Facts found by measuring (Linux 6.18):

* the scan with nothing but PAGE_IS_WRITTEN asked for also reports pages that MADV_DONTNEED took away, page tables and all;
* it would also fill the page tables of a range that was never touched, so only pieces with populated pages are armed, and
  the others are looked at for populated pages;
* PM_SCAN_CHECK_WPASYNC refuses (EPERM) a range that is not, or no longer, registered: mremap and MAP_FIXED drop the registration.

Not seen: writes to shared memory by another way. Such regions are not tracked.
"""

from __future__ import annotations

import errno
import os

import numpy as np

from vcsimg.capture.pages import NO_RANGES, Ranges, clip, join, populated, ranges_of, subtract
from vcsimg.image.region import RegionMap
from vcsimg.image.units import PIECE_SHIFT, PIECE_SIZE
from vcsimg.kernel import pagemap, userfaultfd


class WriteProtection:
    """Tracks the private regions of one address space by a userfaultfd that belongs to it. close() ends all tracking."""

    def __init__(self, uffd: int) -> None:
        self._uffd = uffd
        self._armed: Ranges = NO_RANGES

    def close(self) -> None:
        """Take the protection off every page: the kernel unregisters all regions when the last reference is closed."""
        os.close(self._uffd)

    def written(self, pagemap_fd: int, eligible: Ranges, regions: RegionMap) -> tuple[Ranges, Ranges]:
        """(tracked, written): ranges that were tracked ever since the last call, and what in them was written since then;
        protected again. `eligible`: what may be tracked. What of it is not in `tracked` must be compared."""
        tracked: list[Ranges] = []
        written: list[Ranges] = []
        for low, high in _intersect(self._armed, eligible):
            self._scan(pagemap_fd, low, high, regions, tracked, written)
        self._armed = join(tracked)
        return self._armed, join(written)

    def arm(self, pagemap_fd: int, eligible: Ranges, regions: RegionMap, *, file: bool) -> Ranges:
        """Begin to track what is populated in eligible ranges and not tracked yet. Returns the pages that may have content there;
        writes after this call will be in written(). `file`: as for populated()."""
        armed: list[Ranges] = []
        for low, high in subtract(eligible, self._armed).tolist():
            for start, end in _pieces(populated(pagemap_fd, low, high, file=file), low, high):
                armed.append(self._protect(pagemap_fd, start, end, regions))
        fresh = join(armed)
        self._armed = join([self._armed, fresh])
        # Listed again: a page that was populated after the first look and before its piece was protected would be missed.
        return join([populated(pagemap_fd, low, high, file=file) for low, high in fresh.tolist()])

    def _protect(self, pagemap_fd: int, low: int, high: int, regions: RegionMap) -> Ranges:
        """Protect a range; returns what of it is now tracked."""
        try:
            pagemap.scan_written(pagemap_fd, low, high)
            return ranges_of([(low, high)])
        except PermissionError:
            parts = []
            for region in regions.overlapping(low, high):
                start, end = max(low, region.start), min(high, region.end)
                try:
                    userfaultfd.register_wp(self._uffd, region.start, region.end)
                    pagemap.scan_written(pagemap_fd, start, end)
                except OSError as error:
                    # EBUSY: the process watches this region itself. EINVAL: cannot be protected. The others: it is gone.
                    if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOMEM, errno.ESRCH, errno.EPERM):
                        raise
                else:
                    parts.append((start, end))
            return ranges_of(parts)

    def _scan(self, pagemap_fd: int, low: int, high: int, regions: RegionMap, tracked: list[Ranges], written: list[Ranges]) -> None:
        try:
            written.append(pagemap.scan_written(pagemap_fd, low, high))
            tracked.append(ranges_of([(low, high)]))
        except PermissionError:
            parts = [(max(low, region.start), min(high, region.end)) for region in regions.overlapping(low, high)]
            if parts != [(low, high)]:
                for start, end in parts:
                    self._scan(pagemap_fd, start, end, regions, tracked, written)


def _intersect(first: Ranges, second: Ranges) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for low, high in second:
        out.extend((int(start), int(end)) for start, end in clip(first, int(low), int(high)))
    return out


def _pieces(ranges: Ranges, low: int, high: int) -> list[tuple[int, int]]:
    """The ranges widened to whole pieces, within [low, high), touching ones joined."""
    shift, size = np.uint64(PIECE_SHIFT), np.uint64(PIECE_SIZE - 1)
    wide = np.column_stack((ranges[:, 0] >> shift << shift, (ranges[:, 1] + size) >> shift << shift))
    return [(int(start), int(end)) for start, end in clip(join([wide]), low, high)]
