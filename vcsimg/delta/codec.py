"""How a payload of n·4096 bytes is coded. Numbers stand in the blob's header and never change their meaning.

0   the bytes as they are
1   one zstd frame, its content size in the frame's header, no checksum (page hashes are better)
"""

from __future__ import annotations

import threading

import numpy as np
import zstandard

from vcsimg.delta.units import Rows
from vcsimg.errors import DamagedImage, HostileImage

RAW = 0
ZSTD = 1

_LEVEL = 1
_SMALL_LEVEL = 3
_SMALL = 64 << 10
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


def pack(rows: Rows) -> tuple[int, bytes]:
    """Code rows (n, 4096), C-contiguous. Returns (codec, payload)."""
    packed = _compressor(_SMALL_LEVEL if rows.nbytes <= _SMALL else _LEVEL).compress(rows.data)
    if len(packed) < rows.nbytes - (rows.nbytes >> 5):
        return ZSTD, packed
    return RAW, rows.tobytes()


def unpack(codec: int, payload: bytes | memoryview, size: int, where: str) -> memoryview | bytes:
    """The `size` bytes that a payload stands for. Never makes more. Raises HostileImage, DamagedImage."""
    if codec == RAW:
        if len(payload) != size:
            raise HostileImage(where, f"{len(payload)} bytes of raw payload, not {size}")
        return payload
    if codec == ZSTD:
        return unpack_frame(payload, size, where)
    raise HostileImage(where, f"unknown codec {codec}")


def pack_frame(data: bytes, level: int = _SMALL_LEVEL) -> bytes:
    """One zstd frame of some bytes."""
    return _compressor(level).compress(data)


def unpack_frame(frame: bytes | memoryview, size: int, where: str) -> bytes:
    """The content of a zstd frame that must have exactly `size` bytes. Raises HostileImage, DamagedImage.

    The size is compared before any memory is taken: a frame of a few bytes can claim to hold 2^64.
    """
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != size or parameters.dict_id:
            raise HostileImage(where, f"a frame of {parameters.content_size} bytes, not {size}")
        data = _decompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedImage(where, f"cannot be decompressed: {error}") from None
    if len(data) != size:
        raise HostileImage(where, f"{len(data)} bytes in the frame, not {size}")
    return data


def as_rows(data: bytes | memoryview, pages: int) -> Rows:
    """Bytes as an array (pages, 4096), without a copy; read-only."""
    return np.frombuffer(data, np.uint8).reshape(pages, -1)
