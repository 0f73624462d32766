"""Old and new pages → delta."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vcsimg.delta import codec
from vcsimg.delta.blob import Delta
from vcsimg.delta.hashes import PieceState, fold, page_hashes, shortened
from vcsimg.delta.units import PAGES, QUARTER, Flags, Indexes, Rows
from vcsimg.delta.words import few_words


class StateMismatch(Exception):
    """The old contents given are not what the state says: a delta from them would lead nowhere."""


def encode(
    address: int,
    pages: Indexes,
    old: Rows,
    had: Flags,
    new: Rows,
    has: Flags,
    state: PieceState,
    *,
    quick: bool = False,
) -> Delta | None:
    """The delta from old to new pages of a piece, and `state` brought to what it leads to. None when nothing changed.

    pages (n,) ascending; old and new (n, 4096) uint8, C-contiguous rows; rows where had / has (n,) is False are taken as zeros.
    `quick`: as in codec.pack. Raises StateMismatch when the old pages are not what the state says of them, and
    leaves `state` as it was.
    """
    every = bool(had.all() and has.all())
    if not every:
        new = _only(new, has)
        old = _only(old, had)
    rows = np.bitwise_xor(old, new)
    differ = np.asarray(rows.view(np.uint64).any(axis=1))
    changed = differ if every else differ | (had != has)
    if not changed.all():
        rows, old, new, pages, had, has = rows[changed], old[changed], new[changed], pages[changed], had[changed], has[changed]
    if not len(pages):
        return None
    if (state.own[pages] != had).any():
        raise StateMismatch
    gone = page_hashes(old, pages) if every else page_hashes(old[had], pages[had])
    if (shortened(gone) != state.hashes[pages if every else pages[had]]).any():
        raise StateMismatch
    hashes = page_hashes(new, pages) if every else page_hashes(new[has], pages[has])
    before, digest = state.digest, state.digest ^ fold(gone) ^ fold(hashes)
    short = shortened(hashes)
    state.update(pages, has, short, digest)
    rows = np.ascontiguousarray(rows)
    before_rows = np.ascontiguousarray(old) if every or had.any() else None
    number, payload = codec.pack(rows, quick=quick, old=before_rows)
    few = few_words(rows, pages, len(payload))
    return Delta(address, before, digest, pages, had, has, short, number, payload, few)


def _only(rows: Rows, flags: Flags) -> Rows:
    """The rows, zeros where the flag is not set."""
    if flags.all():
        return rows
    rows = rows.copy()
    rows[~flags] = 0
    return rows


def keyframes(address: int, pages: Indexes, rows: Rows, state: PieceState, *, quick: bool = False) -> list[Delta]:
    """The keyframes of a piece, one for each quarter of it that has own content, and `state` brought to what they lead to together.

    pages (n,) ascending: all that have own content; rows (n, 4096), C-contiguous. `quick`: as in codec.pack.
    """
    hashes = page_hashes(rows, pages)
    short = shortened(hashes)
    state.update(pages, np.ones(len(pages), bool), short, fold(hashes))
    found = []
    borders = np.searchsorted(pages, np.arange(0, PAGES + 1, QUARTER)).tolist()
    for part in (slice(first, last) for first, last in pairwise(borders) if first < last):
        number, payload = codec.pack(rows[part], quick=quick)
        has = np.ones(part.stop - part.start, bool)
        found.append(Delta(address, 0, state.digest, pages[part], ~has, has, short[part], number, payload))
    return found
