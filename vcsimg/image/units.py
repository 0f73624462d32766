"""Sizes and addresses of the image model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

PAGE_SIZE = 4096
PAGE_SHIFT = 12
PIECE_SIZE = 8 << 20
PIECE_SHIFT = 23
PAGES_PER_PIECE = PIECE_SIZE // PAGE_SIZE

RemoteAddress = NewType("RemoteAddress", int)
"""An address in the captured process, never one of ours."""

PieceNumber = NewType("PieceNumber", int)
"""Address of a piece divided by PIECE_SIZE."""


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """A half-open range of addresses [start, end)."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1 << 64:
            raise ValueError(f"not a range: {self.start:#x}-{self.end:#x}")

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end

    def intersect(self, other: Range) -> Range | None:
        """The part that both have, or None when they have none."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Range(start, end) if start < end else None

    def pieces(self) -> range:
        """Numbers of the pieces that it touches."""
        return range(self.start >> PIECE_SHIFT, (self.end + PIECE_SIZE - 1) >> PIECE_SHIFT)


WRITE_SIZE = 64 << 10
"""Bytes that are written to a file in one call. The kernel makes folios of that size for them in the page cache, and ext4 looks at every block of a folio
for each write into it: after writes of 2 MiB, filling a file takes ten times as long, and changing single pages of it three times (Linux 6.18)."""
