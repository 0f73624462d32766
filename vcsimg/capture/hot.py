"""Which memory is written between all captures: to protect it again after each would cost the process a fault for each of its pages, and tell
nothing new.

What is left unprotected counts as written at the next look, whether it was or not: then it is copied and compared in vain, and never missed. So only
what was written several times on end is left, and it is never much; a part of it is protected in each turn all the same, to see whether that is still
so, a smaller part the longer it was.
"""

from __future__ import annotations

import numpy as np

from vcsimg.capture.pages import NO_RANGES, Ranges, page_numbers, ranges_of_pages, size_of
from vcsimg.image.units import PAGE_SHIFT

_GRANULE_SHIFT = 6
"""A granule has 64 pages, 256 KiB: few calls for much memory."""
_MOSTLY = 48
"""Pages of a granule that must have been written."""
_TIMES = 3
_TURNS = 4
_LONG, _LONG_TURNS = 16, 16
"""Each granule is protected in one of so many turns; one that was written in so many captures, in one of more."""
_TURN_SHIFT = 3
"""Granules that have the same turn: those of 2 MiB, so that no huge page is cut in two."""
_MOST = 256
"""Granules that are left: 64 MiB."""
_MUCH = 8
"""So many times as much may have been written, or it is not looked at: that would take longer than the faults."""


class Hot:
    """Of one address space. In each capture, observe() comes first."""

    def __init__(self) -> None:
        self._granules = np.zeros(0, np.int64)
        self._times = np.zeros(0, np.int64)
        self._turn = 0

    def observe(self, written: Ranges) -> None:
        """What the first look of a capture found: ranges, ascending, that were written since the last one, or were left."""
        granules = np.zeros(0, np.int64)
        if size_of(written) >> PAGE_SHIFT + _GRANULE_SHIFT <= _MUCH * _MOST:
            granules, pages = np.unique(page_numbers(written) >> _GRANULE_SHIFT, return_counts=True)
            granules = granules[pages >= _MOSTLY]
        before = np.isin(granules, self._granules, assume_unique=True)
        times = np.ones(len(granules), np.int64)
        times[before] += self._times[np.isin(self._granules, granules, assume_unique=True)]
        self._granules, self._times = granules, times
        self._turn = (self._turn + 1) % _LONG_TURNS

    def left(self) -> Ranges:
        """Ranges that may be left unprotected until the next capture."""
        places = self._granules >> _TURN_SHIFT
        _, first, same = np.unique(places, return_index=True, return_inverse=True)
        if not len(first):
            return NO_RANGES
        times = np.minimum.reduceat(self._times, first)[same]
        turns = np.where(times >= _LONG, _LONG_TURNS, _TURNS)
        granules = self._granules[(self._times >= _TIMES) & ((places - self._turn) % turns != 0)]
        if len(granules) > _MOST:
            granules = granules[granules >> _TURN_SHIFT < granules[_MOST] >> _TURN_SHIFT]
        return ranges_of_pages(granules) << np.uint64(_GRANULE_SHIFT)
