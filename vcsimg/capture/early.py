"""A look at what was written that goes on aside while other things are read in the stop: of a GiB it takes half a millisecond. That of a large
process is shared by several threads, as far as there are processors."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from vcsimg.capture.pages import Ranges
from vcsimg.capture.protection import WriteProtection
from vcsimg.kernel import features
from vcsimg.kernel.aside import Aside
from vcsimg.kernel.syscalls import NR

_SHARE = 1 << 30
"""Bytes that are worth a thread."""
_MOST = 16


class EarlyLook:
    """Made while the process runs; begin() when it is stopped, then take(), which gives what WriteProtection.written() does for `eligible`;
    close() in any case."""

    def __init__(self, tracker: WriteProtection, eligible: Ranges) -> None:
        self.eligible = eligible
        self._tracker = tracker
        self._look = tracker.look(eligible)
        calls = np.array([(NR["ioctl"], 0, *scan.call, 0, 0, 0) for scan in self._look.scans], np.uint64).reshape(-1, 7)
        self._asides: list[Aside] = []
        try:
            for first, last in pairwise(_parted([end - start for start, end in self._look.spans], len(self._look.registered))):
                self._asides.append(Aside(calls[first:last]))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def possible() -> bool:
        """Whether this machine can."""
        return features.available("aside")

    def begin(self, pagemap_fd: int) -> None:
        """No thread of the process may be borrowed from now on, as that changes its map."""
        for aside in self._asides:
            aside.calls[:, 1] = pagemap_fd
            aside.begin()

    def take(self, pagemap_fd: int) -> tuple[Ranges, Ranges, Ranges]:
        """(tracked, written, unregistered)."""
        results = np.concatenate([aside.results() for aside in self._asides])
        return self._tracker.take(self._look, pagemap_fd, results.tolist())

    def close(self) -> None:
        """Nothing more happens when called again."""
        for aside in self._asides:
            aside.close()


def _parted(sizes: list[int], before: int) -> list[int]:
    """Where to part a row of calls, edges included, of which the first `before` take no time, and the others as long as `sizes` (bytes) say."""
    whole = sum(sizes)
    threads = max(1, min(_MOST, _others(), whole // _SHARE))
    done = np.cumsum(sizes)
    inner = [before + 1 + int(np.searchsorted(done, whole * part // threads)) for part in range(1, threads)]
    return sorted({0, *inner, before + len(sizes)})


def _others() -> int:
    """Processors that we may use besides the one on which this thread goes on."""
    return len(os.sched_getaffinity(0)) - 1
