"""A look at what was written that goes on aside while other things are read in the stop: of a GiB it takes half a millisecond."""

from __future__ import annotations

import numpy as np

from vcsimg.capture.pages import Ranges
from vcsimg.capture.protection import WriteProtection
from vcsimg.kernel import features
from vcsimg.kernel.aside import Aside
from vcsimg.kernel.syscalls import NR


class EarlyLook:
    """Made while the process runs; begin() when it is stopped, then take(), which gives what WriteProtection.written() does for `eligible`;
    close() in any case."""

    def __init__(self, tracker: WriteProtection, eligible: Ranges) -> None:
        self.eligible = eligible
        self._tracker = tracker
        self._look = tracker.look(eligible)
        calls = [(NR["ioctl"], 0, *scan.call, 0, 0, 0) for scan in self._look.scans]
        self._aside = Aside(np.array(calls, np.uint64).reshape(-1, 7))

    @staticmethod
    def possible() -> bool:
        """Whether this machine can."""
        return features.available("aside")

    def begin(self, pagemap_fd: int) -> None:
        """No thread of the process may be borrowed from now on, as that changes its map."""
        self._aside.calls[:, 1] = pagemap_fd
        self._aside.begin()

    def take(self, pagemap_fd: int) -> tuple[Ranges, Ranges, Ranges]:
        """(tracked, written, unregistered)."""
        return self._tracker.take(self._look, pagemap_fd, self._aside.results().tolist())

    def close(self) -> None:
        """Nothing more happens when called again."""
        self._aside.close()
