"""Which pages were written: userfaultfd write-protection, asynchronous, and PAGEMAP_SCAN (Linux 6.7).

The kernel marks a page when it is written, and never asks us (UFFD_FEATURE_WP_ASYNC); the scan lists the marked pages and
protects them again in one step. Facts found by measuring (Linux 6.18):

* the scan with nothing but PAGE_IS_WRITTEN asked for also reports pages that MADV_DONTNEED took away, page tables and all;
* it would also fill the page tables of a range that was never touched, so only what has populated pages in the same page table is armed, and
  the rest is looked at for populated pages;
* PM_SCAN_CHECK_WPASYNC refuses (EPERM) a range that is not, or no longer, registered: mremap and MAP_FIXED drop the registration.

Not seen: writes to shared memory by another way. Such regions are not tracked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from vcsimg.capture.hot import Hot
from vcsimg.capture.pages import NO_RANGES, Ranges, clusters, intersect, join, populated, ranges_of, subtract
from vcsimg.image.region import RegionMap
from vcsimg.kernel import pagemap, userfaultfd

_FEW, _ROOM = 1 << 6, 1 << 12
"""Ranges that one scan can tell: while the process runs, and in a look."""
_STEP = 256 << 20
_TABLE_SHIFT = 21
"""A page table has 512 entries."""


class Look(NamedTuple):
    """The scans of one look: those that tell what is not registered, and those for what was written in `spans`."""

    registered: list[pagemap.Scan]
    spans: list[list[int]]
    written: list[pagemap.Scan]

    @property
    def scans(self) -> list[pagemap.Scan]:
        """All of them, in the order in which they are to be made."""
        return [*self.registered, *self.written]


class WriteProtection:
    """Tracks the private regions of one address space by a userfaultfd that belongs to it. close() ends all tracking."""

    def __init__(self, uffd: int) -> None:
        self._uffd = uffd
        self.hot = Hot()
        self._armed: Ranges = NO_RANGES
        self._eligible: Ranges = NO_RANGES
        self._clusters: list[list[int]] = []  # of `_eligible`
        self._spans: list[list[int]] = []  # `_armed`
        self.is_over = False  # the address space is gone: the process has called exec
        self._ineligible: list[bytes] | None = None  # what was not registered at the last look, when none of it was eligible

    def close(self) -> None:
        """Take the protection off every page: the kernel unregisters all regions when the last reference is closed."""
        os.close(self._uffd)

    def written(self, pagemap_fd: int, eligible: Ranges) -> tuple[Ranges, Ranges, Ranges]:
        """(tracked, written, unregistered): ranges that were tracked ever since the last call, what in them was written since then
        (protected again now), and what of `eligible` is not registered. `eligible`: what may be tracked. What of it is not in
        `tracked` must be compared."""
        self._consider(eligible)
        registered = self._registered()
        unregistered = self._unregistered(registered, pagemap_fd, [_made(scan, pagemap_fd) for scan in registered])
        scans = [pagemap.written(low, high, room=_FEW) for low, high in self._spans]
        written = self._written(self._spans, scans, pagemap_fd, [_made(scan, pagemap_fd) for scan in scans])
        return self._armed, written, unregistered

    def forget(self, ranges: Ranges) -> None:
        """Ranges count as not tracked, until they are armed again."""
        if len(ranges):
            self._set(subtract(self._armed, ranges))

    def leave_hot(self, eligible: Ranges) -> None:
        """Take the protection off what is hot, tracked, and in `eligible`, while the process runs: it is in written() next time. Where the process has
        changed its map, or is about to, it stays protected."""
        for start, end in intersect(intersect(self.hot.left(), eligible), self._armed).tolist():
            with suppress(OSError):
                userfaultfd.unprotect(self._uffd, start, end)

    def look(self, eligible: Ranges) -> Look:
        """written(), in two steps: this one gives the scans, to be made by whoever can; take() is the other. It may count as not tracked what
        written() can still make use of, where the process changed its map a moment ago."""
        self._consider(eligible)
        spans = [
            [start, min(start + _STEP, high)] for low, high in self._spans for start in range(low, high, _STEP)
        ]  # so that several can share them
        return Look(self._registered(), spans, [pagemap.written(low, high, room=_ROOM) for low, high in spans])

    def take(self, look: Look, pagemap_fd: int, results: Sequence[int]) -> tuple[Ranges, Ranges, Ranges]:
        """`results`: of the scans of the look, in their order; negative errno for one that failed."""
        count = len(look.registered)
        unregistered = self._unregistered(look.registered, pagemap_fd, results[:count])
        written = self._written(look.spans, look.written, pagemap_fd, results[count:])
        return self._armed, written, unregistered

    def _consider(self, eligible: Ranges) -> None:
        if eligible is not self._eligible:
            self._eligible, self._clusters = eligible, clusters(eligible).tolist()
            self._ineligible = None
            self._set(intersect(self._armed, eligible))

    def _registered(self) -> list[pagemap.Scan]:
        """What tells what is not registered for asynchronous write-protection. Regions that are cost nothing to look at."""
        wrong = pagemap.WPALLOWED
        return [pagemap.Scan(low, high, allof=wrong, inverted=wrong, returned=wrong) for low, high in self._clusters]

    def _unregistered(self, scans: Sequence[pagemap.Scan], pagemap_fd: int, results: Sequence[int]) -> Ranges:
        found = [scan.ranges(pagemap_fd, result) for scan, result in zip(scans, results, strict=True)]
        seen = [part.tobytes() for part in found]
        if seen == self._ineligible:
            return NO_RANGES
        unregistered = intersect(join(part[:, :2] for part in found), self._eligible)
        if len(unregistered):
            self._set(subtract(self._armed, unregistered))
        self._ineligible = None if len(unregistered) else seen
        return unregistered

    def _written(self, spans: list[list[int]], scans: Sequence[pagemap.Scan], pagemap_fd: int, results: Sequence[int]) -> Ranges:
        written: list[Ranges] = []
        lost: list[tuple[int, int]] = []
        for (low, high), scan, result in zip(spans, scans, results, strict=True):
            try:
                found = scan.ranges(pagemap_fd, result)[:, :2]
            except PermissionError:
                # The process changed its map since it was looked at. Part of the range may have been protected again and
                # what was written there forgotten, so all of it counts as not tracked.
                lost.append((low, high))
                continue
            if len(found):
                written.append(found)
        if lost:
            self._set(subtract(self._armed, ranges_of(lost)))
        return join(written)

    def _set(self, armed: Ranges) -> None:
        self._armed = armed
        self._spans = armed.tolist()

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
                    if error.errno == errno.ENOMEM:
                        self.is_over = True
                        return False
                    # EBUSY: the process watches this region itself. EINVAL: it is of a kind that cannot be protected.
                    if error.errno not in (errno.EBUSY, errno.EINVAL, errno.EPERM):
                        raise
        return fresh

    def arm(self, pagemap_fd: int, eligible: Ranges, *, file: bool) -> Ranges:
        """Begin to track what is populated in eligible, registered ranges and not tracked yet. Returns the pages that may have
        content there; writes after this call will be in written(). `file`: as for populated()."""
        armed: list[tuple[int, int]] = []
        free = subtract(eligible, self._armed)
        for start, end in intersect(_tables(populated(pagemap_fd, free, file=file)), free).tolist():
            with suppress(PermissionError):
                pagemap.scan_written(pagemap_fd, start, end)
                armed.append((start, end))
        fresh = ranges_of(armed)
        if len(fresh):
            self._set(join([self._armed, fresh]))
        # Listed again: a page that was populated after the first look and before its page table was protected would be missed.
        return populated(pagemap_fd, fresh, file=file)


def _made(scan: pagemap.Scan, pagemap_fd: int) -> int:
    try:
        return scan.make(pagemap_fd)
    except OSError as error:
        return -(error.errno or errno.EIO)


def _tables(ranges: Ranges) -> Ranges:
    """The ranges widened to what one page table covers."""
    shift, size = np.uint64(_TABLE_SHIFT), np.uint64((1 << _TABLE_SHIFT) - 1)
    return join([np.column_stack((ranges[:, 0] >> shift << shift, (ranges[:, 1] + size) >> shift << shift))])
