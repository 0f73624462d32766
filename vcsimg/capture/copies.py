"""Copies of pages that a capture has made, kept for the next one: what is written all the time is then compared with them where they are, in place of
being written to the shadow's file and read from it each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vcsimg.capture.pages import PageNumbers
from vcsimg.image.pages import Bytes2D, Flags

Places = npt.NDArray[np.intp]


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
