"""Zstd frames: each has its content size in its header, no checksum (page hashes are better) and nothing behind it."""

from __future__ import annotations

import sys
import threading

import numpy as np
import numpy.typing as npt
import zstandard

from vcsimg.errors import DamagedImage, HostileImage

if sys.version_info >= (3, 14):
    from compression.zstd import CompressionParameter, ZstdCompressor, ZstdDict
else:
    from backports.zstd import CompressionParameter, ZstdCompressor, ZstdDict

FAST = 1
GOOD = 3
_HASH_LESS = 3
_HASH_LOG = (10, 20)
_WINDOW_LEAST = 10
_local = threading.local()


def compressor(level: int) -> zstandard.ZstdCompressor:
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


def pack_frame(data: bytes, level: int = GOOD) -> bytes:
    """One zstd frame of some bytes."""
    return compressor(level).compress(data)


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


def content_size(frame: bytes | memoryview, where: str) -> int:
    try:
        return int(zstandard.get_frame_parameters(frame).content_size)
    except zstandard.ZstdError as error:
        raise DamagedImage(where, f"cannot be decompressed: {error}") from None


def pack_over(new: npt.NDArray[np.generic], old: npt.NDArray[np.generic]) -> bytes:
    """One zstd frame of `new`, of as many bytes as `old`, which is its dictionary: that of unpack_over().

    As a prefix (zstd's ZSTD_CCtx_refPrefix()): a dictionary is taken up at every byte, and then its table copied; a prefix at every third,
    straight into the table.
    """
    size = new.nbytes
    # At level 1, the quickest, zstd looks at 2^14 places, too few for a dictionary of this size: each must find room, or nearly so.
    places = min(max(size.bit_length() - _HASH_LESS, _HASH_LOG[0]), _HASH_LOG[1])
    options: dict[int, int] = {
        CompressionParameter.compression_level: FAST,
        CompressionParameter.window_log: max((2 * size - 1).bit_length(), _WINDOW_LEAST),
        CompressionParameter.hash_log: places,
        CompressionParameter.min_match: 7,
    }
    packer = ZstdCompressor(options=options, zstd_dict=ZstdDict(old.data.cast("B"), is_raw=True).as_prefix)
    packer.set_pledged_input_size(size)
    return packer.compress(new.data.cast("B"), mode=ZstdCompressor.FLUSH_FRAME)


def unpack_over(frame: bytes | memoryview, old: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.uint8]:
    """The bytes, as many as `old` has, of a frame whose dictionary that is; read-only."""
    dictionary = zstandard.ZstdCompressionDict(old.data.cast("B"), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
    return np.frombuffer(_unpack_frame(decompressor, frame, old.nbytes, where), np.uint8)
