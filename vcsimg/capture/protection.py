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
from contextlib import suppress

import numpy as np

from vcsimg.capture.pages import NO_RANGES, Ranges, clusters, intersect, join, populated, ranges_of, subtract
from vcsimg.image.region import RegionMap
from vcsimg.image.units import PIECE_SHIFT, PIECE_SIZE
from vcsimg.kernel import pagemap, userfaultfd


class WriteProtection:
    """Tracks the private regions of one address space by a userfaultfd that belongs to it. close() ends all tracking."""

    def __init__(self, uffd: int) -> None:
        self._uffd = uffd
        self._armed: Ranges = NO_RANGES
        self._eligible: Ranges = NO_RANGES
        self._clusters: list[list[int]] = []  # of `_eligible`
        self._spans: list[list[int]] = []  # `_armed`

    def close(self) -> None:
        """Take the protection off every page: the kernel unregisters all regions when the last reference is closed."""
        os.close(self._uffd)

    def written(self, pagemap_fd: int, eligible: Ranges) -> tuple[Ranges, Ranges, Ranges]:
        """(tracked, written, unregistered): ranges that were tracked ever since the last call, what in them was written since then
        (protected again now), and what of `eligible` is not registered. `eligible`: what may be tracked. What of it is not in
        `tracked` must be compared."""
        if eligible is not self._eligible:
            self._eligible, self._clusters = eligible, clusters(eligible).tolist()
            self._set(intersect(self._armed, eligible))
        unregistered = self._unregistered(pagemap_fd)
        if len(unregistered):
            self._set(subtract(self._armed, unregistered))
        written: list[Ranges] = []
        lost: list[tuple[int, int]] = []
        for low, high in self._spans:
            try:
                found = pagemap.scan_written(pagemap_fd, low, high)
            except PermissionError:
                # The process changed its map since it was looked at. Part of the range may have been protected again and
                # what was written there forgotten, so all of it counts as not tracked.
                lost.append((low, high))
                continue
            if len(found):
                written.append(found)
        if lost:
            self._set(subtract(self._armed, ranges_of(lost)))
        return self._armed, join(written), unregistered

    def _set(self, armed: Ranges) -> None:
        self._armed = armed
        self._spans = armed.tolist()

    def _unregistered(self, pagemap_fd: int) -> Ranges:
        """What of the eligible ranges is not registered for asynchronous write-protection. Regions that are cost nothing to look at."""
        wrong = pagemap.WPALLOWED
        found = [
            pagemap.scan(pagemap_fd, low, high, allof=wrong, inverted=wrong, returned=wrong)[:, :2] for low, high in self._clusters
        ]
        return intersect(join(found), self._eligible) if any(map(len, found)) else NO_RANGES

    def register(self, unregistered: Ranges, regions: RegionMap) -> bool:
        """Make ranges known to the userfaultfd, so that arm() can protect them. Returns whether any could be: then regions may have
        become one with their neighbours. The process must be stopped: registering a range that no longer is a whole region would
        cut the region that is there in two, and then mremap(2) of it fails."""
        fresh = False
        for low, high in unregistered.tolist():
            for region in regions.overlapping(low, high):
                try:
                    userfaultfd.register_wp(self._uffd, max(low, region.start), min(high, region.end))
                    fresh = True
                except OSError as error:
                    # EBUSY: the process watches this region itself. EINVAL: it is of a kind that cannot be protected.
                    if error.errno not in (errno.EBUSY, errno.EINVAL, errno.EPERM):
                        raise
        return fresh

    def arm(self, pagemap_fd: int, eligible: Ranges, *, file: bool) -> Ranges:
        """Begin to track what is populated in eligible, registered ranges and not tracked yet. Returns the pages that may have
        content there; writes after this call will be in written(). `file`: as for populated()."""
        armed: list[tuple[int, int]] = []
        free = subtract(eligible, self._armed)
        for start, end in intersect(_pieces(populated(pagemap_fd, free, file=file)), free).tolist():
            with suppress(PermissionError):
                pagemap.scan_written(pagemap_fd, start, end)
                armed.append((start, end))
        fresh = ranges_of(armed)
        if len(fresh):
            self._set(join([self._armed, fresh]))
        # Listed again: a page that was populated after the first look and before its piece was protected would be missed.
        return populated(pagemap_fd, fresh, file=file)


def _pieces(ranges: Ranges) -> Ranges:
    """The ranges widened to whole pieces."""
    shift, size = np.uint64(PIECE_SHIFT), np.uint64(PIECE_SIZE - 1)
    return join([np.column_stack((ranges[:, 0] >> shift << shift, (ranges[:, 1] + size) >> shift << shift))])
