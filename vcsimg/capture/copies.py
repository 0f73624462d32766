"""Copies of pages that a capture has made, kept for the next one: what is written all the time is then compared with them where they are, in place of
being written to the shadow's file and read from it each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vcsimg.capture.pages import PageNumbers
from vcsimg.image.pages import Bytes2D, Flags, differ

Places = npt.NDArray[np.intp]

_LEAST = 64
_PAGES_A_RUN = 8
"""Where there are fewer pages, or fewer lie side by side, to copy them and compare all at once is as quick."""


@dataclass(eq=False)
class Copies:
    """Pages `numbers` (n,), ascending, with contents `rows` (n, 4096), of which `own` (n,) are own content; the other rows are zeros.

    `current` (n,): which rows are what the shadow holds of their pages. `unwritten` (n,): those of them that its file does not hold.
    """

    numbers: PageNumbers
    rows: Bytes2D
    own: Flags
    current: Flags = field(init=False)
    unwritten: Flags = field(init=False)

    def __post_init__(self) -> None:
        self.current = np.zeros(len(self.numbers), bool)
        self.unwritten = np.zeros(len(self.numbers), bool)

    def find(self, numbers: PageNumbers) -> tuple[Places, Flags]:
        """Where pages (m,), in any order, stand among the copies, and which of them have a current one; both (m,)."""
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return places, (self.numbers[places] == numbers) & self.current[places]

    def compare(self, numbers: PageNumbers, rows: Bytes2D) -> tuple[Places, Flags, Flags] | None:
        """Pages (m,), ascending, with contents (m, 4096), where nearly all have a current copy and the copies lie side by side, so that nothing is
        copied to be compared; otherwise None. Gives what find() does, and which of those with a copy are not equal to it (m,)."""
        places, here = self.find(numbers)
        edges = np.flatnonzero((np.diff(places) != 1) | (here[1:] != here[:-1])) + 1
        few = len(numbers) // _PAGES_A_RUN
        if len(numbers) < _LEAST or len(edges) > few or np.count_nonzero(~here) > few:
            return None
        changed = np.zeros(len(numbers), bool)
        for low, high in pairwise((0, *edges.tolist(), len(numbers))):
            if here[low]:
                first = int(places[low])
                changed[low:high] = differ(rows[low:high], self.rows[first : first + high - low])
        return places, here, changed

    def update(self, where: slice, changed: Flags) -> None:
        """The rows at `where` are current; the file does not hold those that have `changed` (n,)."""
        self.current[where] = True
        self.unwritten[where] = changed

    def drop(self, numbers: PageNumbers) -> None:
        """The copies of some pages are no longer what the shadow holds."""
        places, here = self.find(numbers)
        self.current[places[here]] = False

    def drop_between(self, first: int, end: int) -> None:
        """The same of all pages from `first` to below `end`."""
        low, high = np.searchsorted(self.numbers, (first, end)).tolist()
        self.current[low:high] = False
