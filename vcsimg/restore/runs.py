"""Runs of pages with own content, in pieces of an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vcsimg.image.pages import ImageMemory, Piece
from vcsimg.image.region import Region
from vcsimg.image.units import PAGE_SHIFT, PIECE_SHIFT, PIECE_SIZE


def runs(piece: Piece, base: int, region: Region) -> Iterator[tuple[int, memoryview]]:
    """Address and content of each run of pages with own content that lies in a region."""
    first = max(0, region.start - base) >> PAGE_SHIFT
    last = min(PIECE_SIZE, region.end - base) >> PAGE_SHIFT
    flat = piece.data.reshape(-1)
    marks = np.flatnonzero(np.diff(np.concatenate(([False], piece.own[first:last], [False])).astype(np.int8)))
    for start, stop in marks.reshape(-1, 2).tolist():
        low, high = (first + start) << PAGE_SHIFT, (first + stop) << PAGE_SHIFT
        yield base + low, flat[low:high].data


def own_runs(memory: ImageMemory, region: Region) -> Iterator[tuple[int, memoryview]]:
    """Address and content of each run of pages of a region with own content."""
    for number in range(region.start >> PIECE_SHIFT, (region.end - 1 >> PIECE_SHIFT) + 1):
        piece = memory.pieces.piece(number)
        if piece is not None:
            yield from runs(piece, number << PIECE_SHIFT, region)
