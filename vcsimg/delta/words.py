"""Pages as the words of 8 bytes in them that are not zero, and a bitmap of where these stand.

An XOR of two versions is mostly zeros in scattered places, which cost zstd a few bytes each time it must skip them: a bitmap says it in less, and
leaves less to compress. Lanes bring together what is alike in pointers, lengths and counters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vcsimg.delta.frames import content_size, unpack_frame
from vcsimg.delta.units import PAGE, Indexes, Rows
from vcsimg.errors import HostileImage

Words = npt.NDArray[np.uint64]
"""Words of 8 bytes: shape (n,)."""
Places = npt.NDArray[np.intp]
"""Numbers of words in a piece, 0 … 1,048,575: shape (n,)."""

WORDS = 2
LANES = 3
FEW_WORDS = 256
"""So few are coded both ways, and kept decoded by who merges deltas."""
WORDS_PER_PAGE = PAGE // 8

BITMAP = PAGE // 64
"""Bytes of the bitmap for a page."""
WORD_BITS = 9
"""So many bits count the words of a page."""


def xor_small(parts: Sequence[tuple[int, bytes | memoryview, Indexes | Places]], data: Rows, where: str) -> None:
    """XOR many payloads that are coded by words, each (codec, payload, pages), into data (m, 4096), C-contiguous, at once: one by one, what
    numpy takes for each call would be most of it. Raises HostileImage, DamagedImage."""
    bitmaps, bodies = [], []
    for codec, payload, pages in parts:
        content = _words_frame(payload, len(pages), where)
        bitmaps.append(content[: len(pages) * BITMAP])
        body = content[len(pages) * BITMAP :]
        bodies.append(body if codec == WORDS or len(body) == 8 else np.frombuffer(body, np.uint8).reshape(8, -1).T.tobytes())
    used = _set_bits(np.frombuffer(b"".join(bitmaps), np.uint8))
    ends = np.cumsum([len(bitmap) * 8 for bitmap in bitmaps])
    if (np.diff(np.searchsorted(used, ends), prepend=0) * 8 != [len(body) for body in bodies]).any():
        raise HostileImage(where, "its bitmap does not count its words")
    places = in_pages(used, np.concatenate([pages for _, _, pages in parts]))
    np.bitwise_xor.at(data.reshape(-1).view(np.uint64), places, np.frombuffer(b"".join(bodies), np.uint64))


def _set_bits(bitmap: npt.NDArray[np.uint8]) -> Places:
    """Numbers of the bits that are set, ascending. Few are: most bytes need not be taken apart."""
    some = np.flatnonzero(bitmap != 0)  # of flags: of bytes it takes five times as long
    bits = np.flatnonzero(np.unpackbits(bitmap[some]).view(bool))
    places: Places = some[bits >> 3] << 3
    places |= bits & 7
    return places


def used_words(codec: int, payload: bytes | memoryview, pages: Indexes, where: str) -> tuple[Places, Words] | None:
    """Where in a piece the words stand that a payload of pages (n,) changes, ascending, and what they are XORed with; None if it is not
    coded by words. Raises HostileImage, DamagedImage."""
    if codec not in (WORDS, LANES):
        return None
    bitmap, words = split_words(payload, len(pages), codec == LANES, where)
    return in_pages(numbers_of(bitmap, words, where), pages), words


def few_words(rows: Rows, pages: Indexes, packed: int) -> tuple[Places, Words] | None:
    """The same for rows (n, 4096) that `packed` bytes stand for; None if it would take long to find, or they are many."""
    if packed > FEW_WORDS * 8:
        return None
    every = rows.reshape(-1).view(np.uint64)
    used = every != 0
    words = every[used]
    return (in_pages(np.flatnonzero(used), pages), words) if len(words) <= FEW_WORDS else None


def in_pages(used: Places, pages: Indexes | Places) -> Places:
    """Numbers of words in a piece, from those in its pages (n,), counted through."""
    places: Places = pages.astype(np.intp)[used >> WORD_BITS] << WORD_BITS
    places |= used & (WORDS_PER_PAGE - 1)
    return places


def unpack_words(payload: bytes | memoryview, pages: int, lanes: bool, where: str) -> Rows:
    """The pages (n, 4096) that a payload of WORDS or LANES stands for. Raises HostileImage, DamagedImage."""
    bitmap, words = split_words(payload, pages, lanes, where)
    every = np.zeros(pages * WORDS_PER_PAGE, np.uint64)
    every[flags_of(bitmap, words, where)] = words
    return every.view(np.uint8).reshape(pages, PAGE)


def split_words(payload: bytes | memoryview, pages: int, lanes: bool, where: str) -> tuple[npt.NDArray[np.uint8], Words]:
    """The bitmap of which of the pages' words are not zero, (64·n,), and those; not compared yet."""
    data = np.frombuffer(_words_frame(payload, pages, where), np.uint8)
    bitmap, body = data[: pages * BITMAP], data[pages * BITMAP :]
    return bitmap, (_from_lanes(body) if lanes else body).view(np.uint64)


def flags_of(bitmap: npt.NDArray[np.uint8], words: Words, where: str) -> npt.NDArray[np.bool_]:
    """Which words a bitmap names, as flags. Raises HostileImage when they are not as many as `words`."""
    used = np.unpackbits(bitmap).view(bool)
    if np.count_nonzero(used) != len(words):
        raise HostileImage(where, "its bitmap does not count its words")
    return used


def numbers_of(bitmap: npt.NDArray[np.uint8], words: Words, where: str) -> Places:
    """The same as numbers, ascending."""
    used = _set_bits(bitmap)
    if len(used) != len(words):
        raise HostileImage(where, "its bitmap does not count its words")
    return used


def _words_frame(payload: bytes | memoryview, pages: int, where: str) -> bytes:
    """The content of a payload that is coded by words: the bitmap, and whole words."""
    bitmap = pages * BITMAP
    size = content_size(payload, where)
    if not bitmap <= size <= bitmap + pages * PAGE or (size - bitmap) % 8:
        raise HostileImage(where, f"a frame of {size} bytes for {pages} pages")
    return unpack_frame(payload, size, where)


def _from_lanes(body: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    words = np.empty((len(body) // 8, 8), np.uint8)
    # Lane by lane: a third quicker than transposing.
    for number, lane in enumerate(body.reshape(8, -1)):
        words[:, number] = lane
    return words.reshape(-1)


def to_lanes(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """The bytes of words lane by lane."""
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, 8).T).reshape(-1)
