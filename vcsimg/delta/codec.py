"""How a payload of n·4096 bytes is coded. Numbers stand in the blob's header and never change their meaning.

    0 RAW     the bytes as they are
    1 ZSTD    one zstd frame of them
    2 WORDS   one zstd frame of: a bitmap, 64 bytes a page, of the 8-byte words that are not zero (the first word is the
              highest bit of the first byte), then those words
    3 LANES   the same, but the words' bytes lane by lane: the first byte of every word, then the second of every word, …
    4 PATCH   not of the XOR: one zstd frame of the new contents, the old contents of the same pages, n·4096 bytes, being its dictionary;
              read, no longer written
    5 LINES   not of the XOR either: the size (32 bits) of a zstd frame, this frame, of a bitmap, 8 bytes a page, of the lines of 64 bytes
              that change; then one of the new contents of these lines, their old contents being its dictionary

A sample decides: text and floating-point numbers lose by lanes, and LINES, which lead one way only, are for what the XOR does not make smaller. Measurements:
docs/store.md, "Codecs".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vcsimg.delta.frames import FAST, GOOD, compressor, unpack_frame
from vcsimg.delta.lines import LINES, pack_lines
from vcsimg.delta.units import PAGE, Indexes, Rows
from vcsimg.delta.words import (
    FEW_WORDS,
    LANES,
    WORDS,
    WORDS_PER_PAGE,
    Words,
    flags_of,
    in_pages,
    numbers_of,
    split_words,
    to_lanes,
    unpack_words,
)
from vcsimg.errors import HostileImage

RAW = 0
ZSTD = 1
DENSE = 0.6
"""If more of all words than this are used, a bitmap does not pay."""

_BEST = 5
_SMALL = 64 << 10
_SAMPLE = 16 << 10
_SAMPLES = 16
_LARGE_SAMPLE = 1 << 17
_SHRINKS = 4
_SHRINKS_SOME = 2
_SHRINKS_MUCH = 32
_CLEARLY = 0.95
_FEW = 16
_NOISE = 0.2
_NOISE_SOME = 0.04
_SIMPLER = 0.5
_NOISE_LEAST = 16 << 10
_LESS = 0.93
_GROUPS = 8
_GROUP = 2
_PAGES_A_GROUP = 64


def pack(rows: Rows, *, quick: bool = False, old: Rows | None = None) -> tuple[int, bytes]:
    """Code rows (n, 4096), C-contiguous. Returns (codec, payload). `quick`: five times as fast where most words are used, for more
    bytes. `old`, of the same shape: what `rows` were XORed with; it lets LINES be chosen."""
    every = rows.reshape(-1).view(np.uint64)
    used = every != 0
    count = int(np.count_nonzero(used))
    dense = count > DENSE * len(every)
    words = every if dense else every[used]
    sample = None
    if old is not None and words.nbytes >= _NOISE_LEAST:
        sample = _Sample(words)
        if (packed := _moved(rows, old, used, sample)) is not None:
            return LINES, packed
    if not dense:
        return pack_words(used, words, sample)
    lanes, shrinks = _lanes_gain(words, sample or _Sample(words), dense=True, quick=quick)
    thorough = shrinks > _SHRINKS and not quick
    if lanes or thorough:
        words = every[used]
        best = words.nbytes <= _SMALL or thorough
        level = _level(shrinks, best=best, dense=True)
        number, packed = LANES if lanes else WORDS, _coded(used, words, lanes=lanes, level=level)
    else:
        number, packed = ZSTD, compressor(GOOD if rows.nbytes <= _SMALL else FAST).compress(rows.data)
    return (number, packed) if _pays(packed, rows.nbytes) else (RAW, rows.tobytes())


class _Sample:
    """How some of the words compress, quickly: bytes of them, and what they take as they are, and lane by lane."""

    def __init__(self, words: Words) -> None:
        tried = _sampled(words)
        self.size = tried.nbytes
        self.plain, self.lanes = _tried(tried)

    @property
    def best(self) -> int:
        return min(self.plain, self.lanes)


def _moved(rows: Rows, old: Rows, used: npt.NDArray[np.bool_], sample: _Sample) -> bytes | None:
    """What LINES makes of it, if the words that are XORed look like noise, or like more than the new contents are, and of some pages it makes
    less than there is in their words."""
    if sample.best < sample.size * _NOISE_SOME:
        return None
    groups = max(_GROUPS, len(rows) // _PAGES_A_GROUP)
    few = len(rows) <= 2 * groups * _GROUP
    # New noise in place of old would take many times as long to find that out of all pages.
    some = slice(None) if few else _groups(len(rows), groups)
    tried, before = rows[some], old[some]
    if sample.best < sample.size * _NOISE and not _simpler(tried ^ before, tried):
        return None
    flags = used if few else used.reshape(len(rows), WORDS_PER_PAGE)[some].reshape(-1)
    if not flags.any():
        return None  # zeros that become own content, or cease to be it
    packed = pack_lines(tried, before, flags)
    if not _less(packed, tried, flags):
        return None
    if few:
        return packed
    packed = pack_lines(rows, old, used)
    return packed if _pays(packed, rows.nbytes) else None


def _groups(count: int, groups: int) -> npt.NDArray[np.intp]:
    """Numbers of some of `count` pages, from everywhere."""
    starts = np.arange(groups) * (count - _GROUP) // (groups - 1)
    return (starts[:, None] + np.arange(_GROUP)).reshape(-1)


def _simpler(new: Rows, rows: Rows) -> bool:
    """Whether the new contents take clearly less than what they are XORed with: where memory is cleared, that is what was there."""
    fast = compressor(FAST)
    return len(fast.compress(new.data)) < len(fast.compress(rows.data)) * _SIMPLER


def _less(packed: bytes, rows: Rows, used: npt.NDArray[np.bool_]) -> bool:
    """Whether it is clearly less than the used words of the rows take."""
    words = rows.reshape(-1).view(np.uint64)[used]
    return len(packed) < min(_tried(words)) * _LESS


def pack_words(used: npt.NDArray[np.bool_], words: Words, sample: _Sample | None = None) -> tuple[int, bytes]:
    """Code pages of which few words are used: `used` (512·n,), and those words, in order. Returns (codec, payload). `sample`: of the words, if
    it was taken already."""
    size = len(used) * 8
    if len(words) <= FEW_WORDS:
        number, packed = pack_few(np.packbits(used), words)
    else:
        lanes, shrinks = _lanes_gain(words, sample or _Sample(words), dense=False, quick=False)
        level = _level(shrinks, best=words.nbytes <= _SMALL, dense=False)
        number, packed = LANES if lanes else WORDS, _coded(used, words, lanes=lanes, level=level)
    if _pays(packed, size):
        return number, packed
    every = np.zeros(len(used), np.uint64)
    every[used] = words
    return RAW, every.tobytes()


def pack_few(bitmap: npt.NDArray[np.uint8], words: Words) -> tuple[int, bytes]:
    """Code at most FEW_WORDS words, and the bitmap (64·n,) of where they stand in n pages. Returns (codec, payload)."""
    best, head = compressor(_BEST), bitmap.tobytes()
    plain = best.compress(head + words.tobytes())
    laned = best.compress(head + words.view(np.uint8).reshape(-1, 8).T.tobytes())
    return (LANES, laned) if len(laned) < len(plain) else (WORDS, plain)


def _level(shrinks: float, *, best: bool, dense: bool) -> int:
    """What long repeats make this small, the quickest level makes smallest; of most words of whole pages (`dense`) that hardly shrink, all
    levels make the same."""
    if best:
        return FAST if shrinks > _SHRINKS_MUCH else _BEST
    return FAST if shrinks > _SHRINKS_MUCH or (dense and shrinks < _SHRINKS_SOME) else GOOD


def _coded(used: npt.NDArray[np.bool_], words: Words, *, lanes: bool, level: int) -> bytes:
    body = to_lanes(words) if lanes else words.view(np.uint8)
    return compressor(level).compress(np.concatenate((np.packbits(used), body)).data)


def _pays(packed: bytes, size: int) -> bool:
    return len(packed) < size - (size >> 5)


def _lanes_gain(words: Words, sample: _Sample, *, dense: bool, quick: bool) -> tuple[bool, float]:
    """Whether words compress better lane by lane, and how many times smaller they become.

    A sample decides; a much larger one if that shrinks to a quarter, since then it costs little: what repeats over long distances shows in no small one. If
    `quick`, the small one decides alone.
    """
    size, plain, lanes = sample.size, sample.plain, sample.lanes
    if not quick and size < words.nbytes and sample.best * _SHRINKS < size:
        words = words[:_LARGE_SAMPLE]
        size = words.nbytes
        plain, lanes = _tried(words)
    return lanes < plain * (_CLEARLY if dense else 1), size / min(plain, lanes)


def _tried(words: npt.NDArray[np.uint64]) -> tuple[int, int]:
    """Bytes that words take as they are, and lane by lane."""
    fast = compressor(FAST)
    return len(fast.compress(words.data)), len(fast.compress(to_lanes(words).data))


def _sampled(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Words enough to see how they compress: all of a few, else some from many places."""
    wanted = _SAMPLE // 8
    if len(words) <= wanted:
        return words
    part = wanted // _SAMPLES
    starts = [step * (len(words) - part) // (_SAMPLES - 1) for step in range(_SAMPLES)]
    return np.concatenate([words[start : start + part] for start in starts])


def unpack(codec: int, payload: bytes | memoryview, pages: int, where: str) -> Rows:
    """The pages (n, 4096) that a payload stands for; may be read-only. Never makes more. Raises HostileImage, DamagedImage."""
    size = pages * PAGE
    if codec == RAW:
        if len(payload) != size:
            raise HostileImage(where, f"{len(payload)} bytes of raw payload, not {size}")
        return np.frombuffer(payload, np.uint8).reshape(pages, PAGE)
    if codec == ZSTD:
        return np.frombuffer(unpack_frame(payload, size, where), np.uint8).reshape(pages, PAGE)
    if codec in (WORDS, LANES):
        return unpack_words(payload, pages, codec == LANES, where)
    raise HostileImage(where, f"unknown codec {codec}")


def xor_into(codec: int, payload: bytes | memoryview, pages: Indexes, data: Rows, where: str, *, zeros: bool = False) -> None:
    """XOR the pages (n,) that a payload stands for into data (2048, 4096), C-contiguous. Raises HostileImage, DamagedImage.

    A delta of many pages and few words costs its words, not its pages. `zeros`: there is nothing in these pages yet.
    """
    if codec not in (WORDS, LANES):
        rows = unpack(codec, payload, len(pages), where)
        if not zeros:
            data[pages] ^= rows
        elif len(pages) == len(data):
            data[:] = rows
        else:
            data[pages] = rows
        return
    bitmap, words = split_words(payload, len(pages), codec == LANES, where)
    if zeros and len(words) * _FEW > len(pages) * WORDS_PER_PAGE:
        # A mask is ten times as quick as places, but costs its length.
        used = flags_of(bitmap, words, where)
        whole = len(pages) == len(data)
        every = data.reshape(-1).view(np.uint64) if whole else np.zeros(len(used), np.uint64)
        every[used] = words
        if not whole:
            data[pages] = every.view(np.uint8).reshape(len(pages), PAGE)
        return
    data.reshape(-1).view(np.uint64)[in_pages(numbers_of(bitmap, words, where), pages)] ^= words
