"""Page hashes and the state of a piece."""

from __future__ import annotations

import numpy as np
import xxhash

from vcsimg.delta.units import PAGES, Flags, Hashes, Indexes, Rows

_hash = xxhash.xxh3_64_intdigest


def page_hashes(rows: Rows, pages: Indexes) -> Hashes:
    """XXH3-64 of each row, seeded with its page's number: equal pages at two places do not cancel out in the state.

    rows (n, 4096) with contiguous rows; pages (n,); result (n,).
    """
    return np.array([_hash(row, seed) for row, seed in zip(rows, pages.tolist(), strict=True)], np.uint64)


def fold(hashes: Hashes) -> int:
    """The XOR of hashes; 0 of none."""
    return int(np.bitwise_xor.reduce(hashes)) if len(hashes) else 0


class PieceState:
    """What is known of a piece's content without keeping it: which pages have own content, and their hashes.

    own (512,); hashes (512,), 0 where not own.
    """

    __slots__ = ("digest", "hashes", "own")

    def __init__(self) -> None:
        self.own: Flags = np.zeros(PAGES, bool)
        self.hashes: Hashes = np.zeros(PAGES, np.uint64)
        self.digest = 0

    def update(self, pages: Indexes, has: Flags, hashes: Hashes) -> None:
        """Pages (n,) now have own content where has (n,); hashes (m,) are those of the m that have."""
        new = np.zeros(len(pages), np.uint64)
        new[has] = hashes
        self.digest ^= fold(self.hashes[pages]) ^ fold(hashes)
        self.hashes[pages] = new
        self.own[pages] = has

    def matches(self, pages: Indexes, rows: Rows, own: Flags) -> bool:
        """Whether these pages (n,), with contents rows (n, 4096) where own (n,), are what this state says of them."""
        if not np.array_equal(self.own[pages], own):
            return False
        held = pages[own]
        return np.array_equal(self.hashes[held], page_hashes(rows[own] if len(held) < len(pages) else rows, held))

    def copy(self) -> PieceState:
        other = PieceState()
        other.own, other.hashes, other.digest = self.own.copy(), self.hashes.copy(), self.digest
        return other

    @property
    def empty(self) -> bool:
        return not self.own.any()
