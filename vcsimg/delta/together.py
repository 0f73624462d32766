"""Deltas of many pieces at once, in each of which few words changed.

One by one such a piece costs twenty calls of numpy, which look at a few hundred bytes each: four times what the bytes take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vcsimg.delta import codec
from vcsimg.delta.blob import Delta
from vcsimg.delta.hashes import PieceState, page_hashes, shortened
from vcsimg.delta.units import PAGE, Flags, Hashes, Indexes, Rows
from vcsimg.delta.words import BITMAP, FEW_WORDS, WORD_BITS, in_pages


class Change(NamedTuple):
    """What encode() takes: pages (n,) ascending, old and new (n, 4096) uint8, had and has (n,), and the state that they lead from."""

    address: int
    pages: Indexes
    old: Rows
    had: Flags
    new: Rows
    has: Flags
    state: PieceState


def encode_together(changes: Sequence[Change]) -> list[Delta | None]:
    """The same deltas as encode() makes, for those changes in which every page has own content and changes, and few words do; their states are
    brought to what they lead to. None for the others, whose states are as they were: they are encode()'s business.
    """
    if not changes:
        return []
    counts = np.array([len(change.pages) for change in changes])
    ends = np.cumsum(counts)
    starts = ends - counts
    rows = np.empty((int(ends[-1]), PAGE), np.uint8)
    for change, start, end in zip(changes, starts.tolist(), ends.tolist(), strict=True):
        np.bitwise_xor(change.old, change.new, out=rows[start:end])
    every = rows.view(np.uint64)
    used = every != 0
    found = np.flatnonzero(used)
    page_of = found >> WORD_BITS
    used_of = np.bincount(page_of, minlength=len(rows))
    words_of = np.add.reduceat(used_of, starts)
    few = (words_of <= FEW_WORDS) & (np.minimum.reduceat(used_of, starts) > 0)
    pages = np.concatenate([change.pages for change in changes])
    own = np.concatenate([change.had for change in changes]) & np.concatenate([change.has for change in changes])
    own &= np.concatenate([change.state.own[change.pages] for change in changes])
    gone = _hashes([change.old for change in changes], pages)
    hashes = _hashes([change.new for change in changes], pages)
    known = np.concatenate([change.state.hashes[change.pages] for change in changes])
    good = few & np.logical_and.reduceat(own & (shortened(gone) == known), starts)
    folds = np.bitwise_xor.reduceat(gone ^ hashes, starts).tolist()
    short = shortened(hashes)
    words = every.reshape(-1)[found]
    places = in_pages(found, pages)
    bitmaps = np.packbits(used)
    word_ends = np.cumsum(words_of)
    bounds = zip(starts.tolist(), ends.tolist(), (word_ends - words_of).tolist(), word_ends.tolist(), strict=True)
    deltas: list[Delta | None] = []
    for change, fine, fold, (start, end, first, last) in zip(changes, good.tolist(), folds, bounds, strict=True):
        if not fine:
            deltas.append(None)
            continue
        state = change.state
        number, payload = codec.pack_few(bitmaps[start * BITMAP : end * BITMAP], words[first:last])
        before, state.digest = state.digest, state.digest ^ fold
        state.hashes[change.pages] = short[start:end]
        few_words = places[first:last], words[first:last]
        deltas.append(
            Delta(
                change.address,
                before,
                state.digest,
                change.pages,
                change.had,
                change.has,
                short[start:end],
                number,
                payload,
                few_words,
            )
        )
    return deltas


def _hashes(parts: Sequence[Rows], pages: Indexes) -> Hashes:
    """page_hashes() of pages that stand in several arrays."""
    return page_hashes([row for rows in parts for row in rows], pages)
