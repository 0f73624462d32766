"""Several deltas → one.

Deltas of few words are merged word by word: a piece's chain is due every twenty captures or so, and where a thousand pieces change at
each capture, forty are due. To rebuild pages for that, and to read back what was written a moment ago, took as long as the capture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vcsimg.delta import codec
from vcsimg.delta.blob import Delta, format_index, heads_of, parse_index
from vcsimg.delta.units import PAGE, PAGES, Flags, Indexes, ShortHashes
from vcsimg.delta.words import used_words
from vcsimg.errors import DamagedImage

_MOST_WORDS = 1 << 15
"""Beyond this, whole pages are merged: sorting so many takes longer."""
_PAGE_SHIFT = 9
_IN_PAGE = PAGE // 8 - 1


class Words(NamedTuple):
    """A delta, decoded, in a form of which thousands can be kept.

    States `before` and `after`; as little-endian arrays: pages (n,) with flags, and hashes (m,), as in the blob; places (k,) uint32:
    numbers of the piece's words that change; words (k,) uint64: what they are XORed with.
    """

    before: int
    after: int
    pages: bytes
    hashes: bytes
    places: bytes
    words: bytes


def words_of(delta: Delta, where: str) -> Words | None:
    """A delta as words; None if they are many, or if it is not coded by words. Raises DamagedImage, HostileImage."""
    found = delta.few
    if found is None and len(delta.payload) <= _MOST_WORDS * 8:
        found = used_words(delta.codec, delta.payload, delta.pages, where)
    if found is None:
        return None
    index = format_index(delta.pages, delta.had, delta.has)
    places = found[0].astype("<u4").tobytes()
    return Words(delta.before, delta.after, index, delta.hashes.astype("<u4").tobytes(), places, found[1].tobytes())


def few_words_of(delta: Delta, blob: bytes) -> Words | None:
    """The same of a delta that was made just now, as the blob `blob`; None if its words are not at hand."""
    if delta.few is None:
        return None
    places, words = delta.few
    index, hashes = heads_of(delta, blob)
    return Words(delta.before, delta.after, index, hashes, places.astype("<u4").tobytes(), words.tobytes())


def merge(deltas: Sequence[Delta | Words], address: int, where: str) -> Delta | None:
    """One delta of the piece at `address` that leads where several, none a patch, each from where the one before ended, lead; None when that
    is where they began.

    Raises DamagedImage when they do not follow one another, HostileImage.
    """
    pages, had, has, hashes = follow(deltas, where)
    few = _all_words(deltas, where)
    if few is not None:
        kept, number, payload = _words(few, pages, had != has)
    else:
        kept, number, payload = _rows(deltas, pages, had != has, where)
    if not kept.any():
        return None
    return Delta(
        address, deltas[0].before, deltas[-1].after, pages[kept], had[kept], has[kept], hashes[kept & has], number, payload
    )


def _all_words(deltas: Sequence[Delta | Words], where: str) -> list[Words] | None:
    """All deltas as words, unless that is not possible or they are many."""
    found = []
    size = 0
    for delta in deltas:
        words = delta if isinstance(delta, Words) else words_of(delta, where)
        size += len(words.words) if words is not None else 0
        if words is None or size > _MOST_WORDS * 8:
            return None
        found.append(words)
    return found


def follow(deltas: Sequence[Delta | Words], where: str, *, keys: int = 0) -> tuple[Indexes, Flags, Flags, ShortHashes]:
    """What deltas come to by their headers: pages (n,) that some name, had (n,) before the first, has (n,) and hashes (n,) after the last. The
    first `keys` are keyframes of quarters of the piece.

    Raises DamagedImage when they do not follow one another.
    """
    if any(one.after != two.before for one, two in pairwise(deltas[keys:])):
        raise DamagedImage(where, "its deltas do not follow one another")
    if any(isinstance(delta, Words) for delta in deltas):
        heads = [
            (delta.pages, delta.hashes)
            if isinstance(delta, Words)
            else (format_index(delta.pages, delta.had, delta.has), delta.hashes.astype("<u4").tobytes())
            for delta in deltas
        ]
        pages, had, has = parse_index(b"".join([index for index, _ in heads]))
        known = np.frombuffer(b"".join([part for _, part in heads]), "<u4")
    else:
        whole = [delta for delta in deltas if isinstance(delta, Delta)]
        pages = np.concatenate([delta.pages for delta in whole])
        had = np.concatenate([delta.had for delta in whole])
        has = np.concatenate([delta.has for delta in whole])
        known = np.concatenate([delta.hashes for delta in whole])
    hashes = np.zeros(len(pages), np.uint32)
    hashes[has] = known
    order = np.argsort(pages, kind="stable")
    pages, had, has = pages[order], had[order], has[order]
    again = pages[1:] == pages[:-1]
    if (had[1:] != has[:-1])[again].any():
        raise DamagedImage(where, "its deltas do not follow one another")
    first = np.concatenate(([True], ~again))
    last = np.concatenate((~again, [True]))
    return pages[first], had[first], has[last], hashes[order][last]


def _words(deltas: Sequence[Words], pages: Indexes, moved: Flags) -> tuple[Flags, int, bytes]:
    """Which of the pages (n,) to name, since content or `moved` (n,) says so; codec and payload."""
    places = np.frombuffer(b"".join([delta.places for delta in deltas]), "<u4")
    words = np.frombuffer(b"".join([delta.words for delta in deltas]), np.uint64)
    order = np.argsort(places, kind="stable")
    places = places[order]
    first = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))[: len(places)]
    words = np.bitwise_xor.reduceat(words[order], first) if len(first) else words
    used = words != 0
    places, words = places[first][used].astype(np.intp), words[used]
    changed = np.zeros(PAGES, bool)
    changed[places >> _PAGE_SHIFT] = True
    kept = changed[pages] | moved
    rank = np.zeros(PAGES, np.intp)
    rank[pages[kept]] = np.arange(np.count_nonzero(kept))
    flags = np.zeros(np.count_nonzero(kept) << _PAGE_SHIFT, bool)
    flags[rank[places >> _PAGE_SHIFT] << _PAGE_SHIFT | places & _IN_PAGE] = True
    if len(words) <= codec.DENSE * len(flags):
        return kept, *codec.pack_words(flags, words)
    every = np.zeros(len(flags), np.uint64)
    every[flags] = words
    return kept, *codec.pack(every.view(np.uint8).reshape(-1, PAGE))


def _rows(deltas: Sequence[Delta | Words], pages: Indexes, moved: Flags, where: str) -> tuple[Flags, int, bytes]:
    """The same, by whole pages."""
    data = np.zeros((PAGES, PAGE), np.uint8)
    for delta in deltas:
        if isinstance(delta, Words):
            data.reshape(-1).view(np.uint64)[np.frombuffer(delta.places, "<u4")] ^= np.frombuffer(delta.words, np.uint64)
        else:
            delta.apply_to(data, where)
    rows = data[pages]
    kept = rows.view(np.uint64).any(axis=1) | moved
    return kept, *codec.pack(rows if kept.all() else np.ascontiguousarray(rows[kept]))
