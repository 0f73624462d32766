"""Page hashes and the state of a piece."""

from __future__ import annotations

import numpy as np
import xxhash

from vcsimg.delta.units import PAGES, Flags, Hashes, Indexes, Rows, ShortHashes

_hash = xxhash.xxh3_64_intdigest


def page_hashes(rows: Rows | list[Rows], pages: Indexes) -> Hashes:
    """XXH3-64 of each row, seeded with its page's number: equal pages at two places do not cancel out in the state.

    rows (n, 4096) with contiguous rows; pages (n,); result (n,).
    """
    return np.array([_hash(row, seed) for row, seed in zip(rows, pages.tolist(), strict=True)], np.uint64)


def shortened(hashes: Hashes) -> ShortHashes:
    """The low 32 bits: what is stored for each page, to tell which one is damaged. The whole ones are in the state."""
    return hashes.astype(np.uint32)


def fold(hashes: Hashes) -> int:
    """The XOR of hashes; 0 of none."""
    return int(np.bitwise_xor.reduce(hashes)) if len(hashes) else 0


class PieceState:
    """What is known of a piece's content without keeping it: which pages have own content, their short hashes, the state.

    own (2048,); hashes (2048,), 0 where not own; digest: the XOR of the whole hashes.
    """

    __slots__ = ("digest", "hashes", "own")

    def __init__(self) -> None:
        self.own: Flags = np.zeros(PAGES, bool)
        self.hashes: ShortHashes = np.zeros(PAGES, np.uint32)
        self.digest = 0

    def update(self, pages: Indexes, has: Flags, hashes: ShortHashes, digest: int) -> None:
        """Pages (n,) now have own content where has (n,); hashes (m,) are those of the m that have; `digest` of the whole."""
        self.hashes[pages] = 0
        self.hashes[pages[has]] = hashes
        self.own[pages] = has
        self.digest = digest

    @property
    def empty(self) -> bool:
        """No page has own content."""
        return not self.own.any()
