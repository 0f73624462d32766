"""Old and new pages → delta."""

from __future__ import annotations

import numpy as np

from vcsimg.delta import codec
from vcsimg.delta.blob import Delta
from vcsimg.delta.hashes import PieceState, fold, page_hashes, shortened
from vcsimg.delta.units import Flags, Indexes, Rows


class StateMismatch(Exception):
    """The old contents given are not what the state says: a delta from them would lead nowhere."""


def encode(
    address: int,
    pages: Indexes,
    old: Rows | None,
    had: Flags,
    new: Rows,
    has: Flags,
    state: PieceState,
    *,
    quick: bool = False,
) -> Delta | None:
    """The delta from old to new pages of a piece, and `state` brought to what it leads to. None when nothing changed.

    pages (n,) ascending; old and new (n, 4096) uint8, C-contiguous rows; rows where had / has (n,) is False are taken as zeros.
    old None: all zeros (had all False). `quick`: as in codec.pack. Raises StateMismatch when the old pages are not what the state says of them, and
    leaves `state` as it was.
    """
    every = bool(had.all() and has.all())
    if not every:
        new = _only(new, has)
        old = _only(old, had) if old is not None else None
    if old is None:
        changed = had | has
        rows, kept = new, new
    else:
        rows, kept = np.bitwise_xor(old, new), new
        differ = np.asarray(rows.view(np.uint64).any(axis=1))
        changed = differ if every else differ | (had != has)
    if not changed.all():
        rows, kept, pages, had, has = rows[changed], kept[changed], pages[changed], had[changed], has[changed]
        old = old[changed] if old is not None else None
    if not len(pages):
        return None
    if (state.own[pages] != had).any():
        raise StateMismatch
    digest = state.digest
    if old is not None:
        gone = page_hashes(old, pages) if every else page_hashes(old[had], pages[had])
        if (shortened(gone) != state.hashes[pages if every else pages[had]]).any():
            raise StateMismatch
        digest ^= fold(gone)
    hashes = page_hashes(kept, pages) if every else page_hashes(kept[has], pages[has])
    before, digest = state.digest, digest ^ fold(hashes)
    short = shortened(hashes)
    state.update(pages, has, short, digest)
    rows = np.ascontiguousarray(rows)
    before_rows = np.ascontiguousarray(old) if old is not None and (every or had.any()) else None
    number, payload = codec.pack(rows, quick=quick, old=before_rows)
    few = codec.few_words(rows, pages, len(payload))
    return Delta(address, before, digest, pages, had, has, short, number, payload, few)


def _only(rows: Rows, flags: Flags) -> Rows:
    """The rows, zeros where the flag is not set."""
    if flags.all():
        return rows
    rows = rows.copy()
    rows[~flags] = 0
    return rows


def keyframe(address: int, own: Flags, data: Rows, state: PieceState) -> Delta:
    """The keyframe of a piece: own (512,), data (512, 4096), and its state, verified already."""
    pages = np.flatnonzero(own).astype(np.uint16)
    number, payload = codec.pack(np.ascontiguousarray(data[pages]))
    flags = np.ones(len(pages), bool)
    return Delta(address, 0, state.digest, pages, ~flags, flags, state.hashes[pages], number, payload)
