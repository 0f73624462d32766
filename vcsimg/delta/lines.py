"""Patches, which lead forward only: new contents of what changes, coded with the old ones as dictionary.

For content that moves about (the cells of a B-tree's page): there an XOR sees noise in what a dictionary finds again. LINES are lines of 64 bytes;
those that stay as they are would only fill the dictionary's hash table.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from vcsimg.delta.frames import FAST, compressor, pack_over, unpack_frame, unpack_over
from vcsimg.delta.units import PAGE, Rows
from vcsimg.errors import HostileImage

PATCH = 4
LINES = 5

_LINE = np.dtype("V64")
_LINES = PAGE // 64
_SIZE = struct.Struct("<I")


def pack_lines(rows: Rows, old: Rows, used: npt.NDArray[np.bool_]) -> bytes:
    """Code pages (n, 4096) as LINES: what they are XORed with, and which words are used, (512·n,)."""
    changed = used.reshape(-1).view(np.uint64) != 0  # eight flags at once
    places = np.flatnonzero(changed)
    before = old.reshape(-1).view(_LINE).take(places).view(np.uint64)
    after = rows.reshape(-1).view(_LINE).take(places).view(np.uint64)
    after ^= before
    bitmap = compressor(FAST).compress(np.packbits(changed).data)
    frame = pack_over(after, before)
    return b"".join((_SIZE.pack(len(bitmap)), bitmap, frame))


def unpack_patch(codec: int, payload: bytes | memoryview, old: Rows, where: str) -> Rows:
    """The pages (n, 4096) that a payload of PATCH or LINES makes of the old ones; may be read-only. Raises HostileImage, DamagedImage."""
    old = np.ascontiguousarray(old)
    if codec == PATCH:
        return unpack_over(payload, old, where).reshape(old.shape)
    if len(payload) < _SIZE.size:
        raise HostileImage(where, f"{len(payload)} bytes of payload for {len(old)} pages")
    middle = _SIZE.size + _SIZE.unpack_from(payload)[0]
    bitmap = unpack_frame(payload[_SIZE.size : middle], len(old) * _LINES // 8, where)
    places = np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8)))
    if not len(places):
        raise HostileImage(where, "no line changes")
    lines = old.reshape(-1).view(_LINE)
    new = lines.copy()
    new[places] = unpack_over(payload[middle:], lines.take(places), where).view(_LINE)
    return new.view(np.uint8).reshape(old.shape)
