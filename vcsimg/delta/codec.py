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

Every frame has its content size in its header, no checksum (page hashes are better) and nothing behind it.

An XOR of two versions is mostly zeros in scattered places, which cost zstd a few bytes each time it must skip them: a bitmap
says it in less, and leaves less to compress. Lanes bring together what is alike in pointers, lengths and counters; text and
floating-point numbers lose by them, so a sample decides. Where content moves about (the cells of a B-tree's page), an XOR sees noise in
what a dictionary finds again: LINES, which leads one way only, is for what the XOR does not make smaller. Lines that stay as they were would only
fill the dictionary's hash table. Measurements: docs/store.md, "Codecs".
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zstandard

from vcsimg.delta.units import PAGE, Indexes, Rows
from vcsimg.errors import DamagedImage, HostileImage

Words = npt.NDArray[np.uint64]
"""Words of 8 bytes: shape (n,)."""
Places = npt.NDArray[np.intp]
"""Numbers of words in a piece, 0 … 1,048,575: shape (n,)."""

RAW = 0
ZSTD = 1
WORDS = 2
LANES = 3
PATCH = 4
LINES = 5
FEW_WORDS = 256
"""So few are coded both ways, and kept decoded by who merges deltas."""
DENSE = 0.6
"""If more of all words than this are used, a bitmap does not pay."""

_FAST = 1
_GOOD = 3
_BEST = 5
_SMALL = 64 << 10
_SAMPLE = 16 << 10
_SAMPLES = 16
_LARGE_SAMPLE = 1 << 17
_SHRINKS = 4
_SHRINKS_SOME = 2
_SHRINKS_MUCH = 32
_CLEARLY = 0.95
_BITMAP = PAGE // 64
_WORDS = PAGE // 8
_WORD_BITS = 9
_FEW = 16
_NOISE = 0.2
_NOISE_LEAST = 16 << 10
_LESS = 0.93
_GROUPS = 8
_GROUP = 2
_PAGES_A_GROUP = 64
_LINE = np.dtype("V64")
_LINES = PAGE // 64
_HASH_LESS = 3
_HASH_LOG = (10, 19)
_WINDOW_LEAST = 10
_SIZE = struct.Struct("<I")
_local = threading.local()


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One a thread and level: a compressor's tables are 0.5 MiB, and it must not be shared between threads."""
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    found = made.get(level)
    if found is None:
        found = made[level] = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found


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
        number, packed = LANES if lanes else WORDS, _coded(used, words, lanes=lanes, level=_level(shrinks, best=best))
    else:
        number, packed = ZSTD, _compressor(_GOOD if rows.nbytes <= _SMALL else _FAST).compress(rows.data)
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
    """What LINES makes of it, if the words that are XORed look like noise, and of some pages it makes less than there is in their words."""
    if sample.best < sample.size * _NOISE:
        return None
    groups = max(_GROUPS, len(rows) // _PAGES_A_GROUP)
    if len(rows) > 2 * groups * _GROUP:
        # New noise in place of old would take many times as long to find that out of all pages.
        starts = np.arange(groups) * (len(rows) - _GROUP) // (groups - 1)
        some = (starts[:, None] + np.arange(_GROUP)).reshape(-1)
        tried, flags = rows[some], used.reshape(len(rows), _WORDS)[some].reshape(-1)
        if not _less(_lines(tried, old[some], flags), tried, flags):
            return None
        packed = _lines(rows, old, used)
        return packed if _pays(packed, rows.nbytes) else None
    packed = _lines(rows, old, used)
    return packed if _less(packed, rows, used) else None


def _less(packed: bytes, rows: Rows, used: npt.NDArray[np.bool_]) -> bool:
    """Whether it is clearly less than the used words of the rows take."""
    words = rows.reshape(-1).view(np.uint64)[used]
    return len(packed) < min(_tried(words)) * _LESS


def _lines(rows: Rows, old: Rows, used: npt.NDArray[np.bool_]) -> bytes:
    """Code pages (n, 4096) as LINES: what they are XORed with, and which words are used, (512·n,)."""
    changed = used.reshape(-1).view(np.uint64) != 0  # eight flags at once
    places = np.flatnonzero(changed)
    before = old.reshape(-1).view(_LINE).take(places).view(np.uint64)
    after = rows.reshape(-1).view(_LINE).take(places).view(np.uint64)
    after ^= before
    bitmap = _compressor(_FAST).compress(np.packbits(changed).data)
    # At level 1, the quickest, zstd looks at 2^14 places, too few for a dictionary of this size: each must find room, or nearly so.
    hash_log = min(max(before.nbytes.bit_length() - _HASH_LESS, _HASH_LOG[0]), _HASH_LOG[1])
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _FAST,
        source_size=after.nbytes,
        window_log=max((2 * after.nbytes - 1).bit_length(), _WINDOW_LEAST),
        hash_log=hash_log,
        chain_log=hash_log,
        min_match=7,
        write_content_size=True,
    )
    frame = zstandard.ZstdCompressor(dict_data=_dictionary(before), compression_params=parameters).compress(after.data)
    return b"".join((_SIZE.pack(len(bitmap)), bitmap, frame))


def _dictionary(old: npt.NDArray[np.generic]) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(old.data.cast("B"), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def pack_words(used: npt.NDArray[np.bool_], words: Words, sample: _Sample | None = None) -> tuple[int, bytes]:
    """Code pages of which few words are used: `used` (512·n,), and those words, in order. Returns (codec, payload). `sample`: of the words, if
    it was taken already."""
    size = len(used) * 8
    if len(words) <= FEW_WORDS:
        number, packed = pack_few(np.packbits(used), words)
    else:
        lanes, shrinks = _lanes_gain(words, sample or _Sample(words), dense=False, quick=False)
        best = words.nbytes * 4 <= size or words.nbytes <= _SMALL or shrinks > _SHRINKS_SOME
        number, packed = LANES if lanes else WORDS, _coded(used, words, lanes=lanes, level=_level(shrinks, best=best))
    if _pays(packed, size):
        return number, packed
    every = np.zeros(len(used), np.uint64)
    every[used] = words
    return RAW, every.tobytes()


def pack_few(bitmap: npt.NDArray[np.uint8], words: Words) -> tuple[int, bytes]:
    """Code at most FEW_WORDS words, and the bitmap (64·n,) of where they stand in n pages. Returns (codec, payload)."""
    best, head = _compressor(_BEST), bitmap.tobytes()
    plain = best.compress(head + words.tobytes())
    laned = best.compress(head + words.view(np.uint8).reshape(-1, 8).T.tobytes())
    return (LANES, laned) if len(laned) < len(plain) else (WORDS, plain)


def _level(shrinks: float, *, best: bool) -> int:
    """What long repeats make this small, the quickest level makes smallest."""
    return _FAST if shrinks > _SHRINKS_MUCH else _BEST if best else _GOOD


def _coded(used: npt.NDArray[np.bool_], words: Words, *, lanes: bool, level: int) -> bytes:
    body = _to_lanes(words) if lanes else words.view(np.uint8)
    return _compressor(level).compress(np.concatenate((np.packbits(used), body)).data)


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
    fast = _compressor(_FAST)
    return len(fast.compress(words.data)), len(fast.compress(_to_lanes(words).data))


def _sampled(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Words enough to see how they compress: all of a few, else some from many places."""
    wanted = _SAMPLE // 8
    if len(words) <= wanted:
        return words
    part = wanted // _SAMPLES
    starts = [step * (len(words) - part) // (_SAMPLES - 1) for step in range(_SAMPLES)]
    return np.concatenate([words[start : start + part] for start in starts])


def _to_lanes(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, 8).T).reshape(-1)


def unpack_patch(codec: int, payload: bytes | memoryview, old: Rows, where: str) -> Rows:
    """The pages (n, 4096) that a payload of PATCH or LINES makes of the old ones; may be read-only. Raises HostileImage, DamagedImage."""
    old = np.ascontiguousarray(old)
    if codec == PATCH:
        return _unpack_over(payload, old, where).reshape(old.shape)
    if len(payload) < _SIZE.size:
        raise HostileImage(where, f"{len(payload)} bytes of payload for {len(old)} pages")
    middle = _SIZE.size + _SIZE.unpack_from(payload)[0]
    bitmap = unpack_frame(payload[_SIZE.size : middle], len(old) * _LINES // 8, where)
    places = np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8)))
    if not len(places):
        raise HostileImage(where, "no line changes")
    lines = old.reshape(-1).view(_LINE)
    new = lines.copy()
    new[places] = _unpack_over(payload[middle:], lines.take(places), where).view(_LINE)
    return new.view(np.uint8).reshape(old.shape)


def _unpack_over(frame: bytes | memoryview, old: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.uint8]:
    """The bytes, as many as `old` has, of a frame whose dictionary that is; read-only."""
    decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(old))
    return np.frombuffer(_unpack_frame(decompressor, frame, old.nbytes, where), np.uint8)


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
        return _unpack_words(payload, pages, codec == LANES, where)
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
    bitmap, words = _split_words(payload, len(pages), codec == LANES, where)
    if zeros and len(words) * _FEW > len(pages) * _WORDS:
        # A mask is ten times as quick as places, but costs its length.
        used = _flags(bitmap, words, where)
        whole = len(pages) == len(data)
        every = data.reshape(-1).view(np.uint64) if whole else np.zeros(len(used), np.uint64)
        every[used] = words
        if not whole:
            data[pages] = every.view(np.uint8).reshape(len(pages), PAGE)
        return
    data.reshape(-1).view(np.uint64)[_in_pages(_numbers(bitmap, words, where), pages)] ^= words


def xor_small(parts: Sequence[tuple[int, bytes | memoryview, Indexes | Places]], data: Rows, where: str) -> None:
    """XOR many payloads that are coded by words, each (codec, payload, pages), into data (m, 4096), C-contiguous, at once: one by one, what
    numpy takes for each call would be most of it. Raises HostileImage, DamagedImage."""
    bitmaps, bodies = [], []
    for codec, payload, pages in parts:
        content = _words_frame(payload, len(pages), where)
        bitmaps.append(content[: len(pages) * _BITMAP])
        body = content[len(pages) * _BITMAP :]
        bodies.append(body if codec == WORDS or len(body) == 8 else np.frombuffer(body, np.uint8).reshape(8, -1).T.tobytes())
    used = _set_bits(np.frombuffer(b"".join(bitmaps), np.uint8))
    ends = np.cumsum([len(bitmap) * 8 for bitmap in bitmaps])
    if (np.diff(np.searchsorted(used, ends), prepend=0) * 8 != [len(body) for body in bodies]).any():
        raise HostileImage(where, "its bitmap does not count its words")
    places = _in_pages(used, np.concatenate([pages for _, _, pages in parts]))
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
    bitmap, words = _split_words(payload, len(pages), codec == LANES, where)
    return _in_pages(_numbers(bitmap, words, where), pages), words


def few_words(rows: Rows, pages: Indexes, packed: int) -> tuple[Places, Words] | None:
    """The same for rows (n, 4096) that `packed` bytes stand for; None if it would take long to find, or they are many."""
    if packed > FEW_WORDS * 8:
        return None
    every = rows.reshape(-1).view(np.uint64)
    used = every != 0
    words = every[used]
    return (_in_pages(np.flatnonzero(used), pages), words) if len(words) <= FEW_WORDS else None


def _in_pages(used: Places, pages: Indexes | Places) -> Places:
    """Numbers of words in a piece, from those in its pages (n,), counted through."""
    places: Places = pages.astype(np.intp)[used >> _WORD_BITS] << _WORD_BITS
    places |= used & (_WORDS - 1)
    return places


def _unpack_words(payload: bytes | memoryview, pages: int, lanes: bool, where: str) -> Rows:
    bitmap, words = _split_words(payload, pages, lanes, where)
    every = np.zeros(pages * _WORDS, np.uint64)
    every[_flags(bitmap, words, where)] = words
    return every.view(np.uint8).reshape(pages, PAGE)


def _split_words(payload: bytes | memoryview, pages: int, lanes: bool, where: str) -> tuple[npt.NDArray[np.uint8], Words]:
    """The bitmap of which of the pages' words are not zero, (64·n,), and those; not compared yet."""
    data = np.frombuffer(_words_frame(payload, pages, where), np.uint8)
    bitmap, body = data[: pages * _BITMAP], data[pages * _BITMAP :]
    return bitmap, (_from_lanes(body) if lanes else body).view(np.uint64)


def _flags(bitmap: npt.NDArray[np.uint8], words: Words, where: str) -> npt.NDArray[np.bool_]:
    """Which words a bitmap names, as flags. Raises HostileImage when they are not as many as `words`."""
    used = np.unpackbits(bitmap).view(bool)
    if np.count_nonzero(used) != len(words):
        raise HostileImage(where, "its bitmap does not count its words")
    return used


def _numbers(bitmap: npt.NDArray[np.uint8], words: Words, where: str) -> Places:
    """The same as numbers, ascending."""
    used = _set_bits(bitmap)
    if len(used) != len(words):
        raise HostileImage(where, "its bitmap does not count its words")
    return used


def _words_frame(payload: bytes | memoryview, pages: int, where: str) -> bytes:
    """The content of a payload that is coded by words: the bitmap, and whole words."""
    bitmap = pages * _BITMAP
    size = _content_size(payload, where)
    if not bitmap <= size <= bitmap + pages * PAGE or (size - bitmap) % 8:
        raise HostileImage(where, f"a frame of {size} bytes for {pages} pages")
    return unpack_frame(payload, size, where)


def _from_lanes(body: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    words = np.empty((len(body) // 8, 8), np.uint8)
    # Lane by lane: a third quicker than transposing.
    for number, lane in enumerate(body.reshape(8, -1)):
        words[:, number] = lane
    return words.reshape(-1)


def _content_size(frame: bytes | memoryview, where: str) -> int:
    try:
        return int(zstandard.get_frame_parameters(frame).content_size)
    except zstandard.ZstdError as error:
        raise DamagedImage(where, f"cannot be decompressed: {error}") from None


def pack_frame(data: bytes, level: int = _GOOD) -> bytes:
    """One zstd frame of some bytes."""
    return _compressor(level).compress(data)


def unpack_frame(frame: bytes | memoryview, size: int, where: str) -> bytes:
    """The content of a zstd frame that must have exactly `size` bytes. Raises HostileImage, DamagedImage.

    The size is compared before any memory is taken: a frame of a few bytes can claim to hold 2^64.
    """
    return _unpack_frame(_decompressor(), frame, size, where)


def _unpack_frame(decompressor: zstandard.ZstdDecompressor, frame: bytes | memoryview, size: int, where: str) -> bytes:
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size or parameters.dict_id:
            raise HostileImage(where, f"a frame of {parameters.content_size} bytes, not {size}")
        data = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedImage(where, f"cannot be decompressed: {error}") from None
    if len(data) != size:
        raise HostileImage(where, f"{len(data)} bytes in the frame, not {size}")
    return data
