"""Reads git packs entry by entry, as they stand: for consolidation, which copies entries without unpacking them."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vcsimg.store import gitdelta
from vcsimg.store.objects import Oid

OFS_DELTA = 6
REF_DELTA = 7
BODY_START = 12
_TRAILER = 20
_DEEPEST = 4096
_KEPT = 32 << 20
_BLOCK = 8 << 20
_LARGE_OFFSET = 1 << 31


class BadPack(Exception):
    """A pack or its index is not what gitformat-pack(5) describes."""


@dataclass(slots=True)
class PackEntry:
    """One entry: its object's id, where it stands [offset, end), and its type in the pack.

    `data` is where the deflated bytes begin, `size` the inflated size (of a delta: the delta's). The base of a delta is given
    by its place (`base`) or by its id (`base_oid`, as packs have it that git received over a wire).
    """

    oid: Oid
    offset: int
    end: int
    kind: int
    size: int
    data: int
    base: int | None
    base_oid: Oid | None
    crc: int

    @property
    def whole(self) -> bool:
        """The object itself, not a delta."""
        return self.base is None and self.base_oid is None


@dataclass(frozen=True, slots=True)
class Index:
    """A pack's index: ids (n,) as 20 bytes each, ascending; offsets (n,) and crcs (n,) in the same order."""

    ids: npt.NDArray[np.void]
    offsets: npt.NDArray[np.uint64]
    crcs: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ids)


class PackFile:
    """A pack that is there with its index. Raises BadPack, OSError. Close it, or use it as a context manager."""

    def __init__(self, path: Path, index: Index | None = None) -> None:
        self.path = path
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(fd).st_size
            if self.size < BODY_START + _TRAILER:
                raise BadPack(f"{path.name} is cut off")
            self.bytes = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        self._index = index if index is not None else read_index(path.with_suffix(".idx"))
        if self.bytes[:8] != b"PACK\0\0\0\x02":
            raise BadPack(f"{path.name} is no pack of version 2")
        if len(self._index) != struct.unpack_from(">I", self.bytes, 8)[0]:
            raise BadPack(f"{path.name} and its index do not have the same number of objects")

    def __enter__(self) -> PackFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes.close()

    def check(self) -> None:
        """Compare the pack with its own checksum. Raises BadPack."""
        hasher = hashlib.sha1(usedforsecurity=False)
        for block in self._blocks(0):
            hasher.update(block)
        if hasher.digest() != self.bytes[self.size - _TRAILER :]:
            raise BadPack(f"{self.path.name} is damaged")

    def body(self) -> Iterator[bytes]:
        """The bytes of all entries, in blocks."""
        return self._blocks(BODY_START)

    def _blocks(self, start: int) -> Iterator[bytes]:
        end = self.size - _TRAILER
        for position in range(start, end, _BLOCK):
            yield self.bytes[position : min(end, position + _BLOCK)]

    @cached_property
    def entries(self) -> list[PackEntry]:
        """All entries, by offset."""
        order = np.argsort(self._index.offsets)
        ids = self._index.ids[order].tobytes()
        offsets = self._index.offsets[order].tolist()
        crcs = self._index.crcs[order].tolist()
        ends = [*offsets[1:], self.size - _TRAILER]
        entries = []
        for place, (offset, end, crc) in enumerate(zip(offsets, ends, crcs, strict=True)):
            if not BODY_START <= offset < end <= self.size - _TRAILER:
                raise BadPack(f"the index of {self.path.name} points outside of it")
            entries.append(self._entry(ids[20 * place : 20 * place + 20], offset, end, crc))
        return entries

    def _entry(self, oid: Oid, offset: int, end: int, crc: int) -> PackEntry:
        byte = self.bytes[offset]
        kind, size, shift, position = byte >> 4 & 7, byte & 15, 4, offset + 1
        while byte & 0x80:
            byte = self.bytes[position]
            size |= (byte & 0x7F) << shift
            shift += 7
            position += 1
        base = base_oid = None
        if kind == OFS_DELTA:
            byte = self.bytes[position]
            position += 1
            back = byte & 0x7F
            while byte & 0x80:
                byte = self.bytes[position]
                position += 1
                back = (back + 1) << 7 | byte & 0x7F
            base = offset - back
        elif kind == REF_DELTA:
            base_oid = self.bytes[position : position + 20]
            position += 20
        return PackEntry(oid, offset, end, kind, size, position, base, base_oid, crc)

    def raw(self, entry: PackEntry) -> bytes:
        """An entry as it stands."""
        raw = self.bytes[entry.offset : entry.end]
        if zlib.crc32(raw) != entry.crc:
            raise BadPack(f"object {entry.oid.hex()} in {self.path.name} is damaged")
        return raw

    def inflate(self, entry: PackEntry) -> bytes:
        """What is deflated in an entry: the object, or the delta."""
        try:
            return zlib.decompress(self.bytes[entry.data : entry.end], bufsize=entry.size or 1)
        except zlib.error as error:
            raise BadPack(f"object {entry.oid.hex()} in {self.path.name} is damaged: {error}") from None


def read_index(path: Path) -> Index:
    """An index of version 2. Raises BadPack, OSError."""
    data = path.read_bytes()
    if data[:8] != b"\xfftOc\0\0\0\x02" or len(data) < 8 + 1024 + 40:
        raise BadPack(f"{path.name} is no index of version 2")
    count = struct.unpack_from(">I", data, 8 + 255 * 4)[0]
    ids = 8 + 1024
    crcs = ids + 20 * count
    offsets = crcs + 4 * count
    large = offsets + 4 * count
    if len(data) < large + 40:
        raise BadPack(f"{path.name} is cut off")
    places = np.frombuffer(data, ">u4", count, offsets).astype(np.uint64)
    far = np.flatnonzero(places >= _LARGE_OFFSET)
    if len(far):
        table = np.frombuffer(data, ">u8", (len(data) - large - 40) // 8, large)
        rows = places[far] & np.uint64(_LARGE_OFFSET - 1)
        if int(rows.max()) >= len(table):
            raise BadPack(f"{path.name} names places that it does not have")
        places[far] = table[rows]
    return Index(np.frombuffer(data, "V20", count, ids), places, np.frombuffer(data, ">u4", count, crcs).astype(np.uint32))


def ofs_header(kind_size: bytes, back: int) -> bytes:
    """The header of a delta whose base begins `back` bytes before it. `kind_size`: its type and size."""
    out = [back & 0x7F]
    back >>= 7
    while back:
        back -= 1
        out.append(0x80 | back & 0x7F)
        back >>= 7
    return kind_size + bytes(reversed(out))


class Contents:
    """Objects of several packs by id, whole, deltas resolved. Keeps what it resolved: bases are asked for again."""

    def __init__(self, packs: list[PackFile]) -> None:
        self.where: dict[Oid, tuple[PackFile, PackEntry]] = {}
        self._at: dict[tuple[Path, int], PackEntry] = {}
        for pack in packs:
            for entry in pack.entries:
                self.where.setdefault(entry.oid, (pack, entry))
                self._at[pack.path, entry.offset] = entry
        self._known: dict[Oid, bytes] = {}
        self._kept = 0

    def base(self, pack: PackFile, entry: PackEntry) -> PackEntry | None:
        """The entry that a delta leads from; None for an object that stands whole. Raises BadPack."""
        if entry.whole:
            return None
        place = self.where.get(entry.base_oid) if entry.base_oid is not None else None
        found = place[1] if place is not None else self._at.get((pack.path, entry.base or 0))
        if found is None:
            raise BadPack(f"object {entry.oid.hex()} in {pack.path.name} is a delta without base")
        return found

    def get(self, oid: Oid) -> bytes | None:
        """The content of an object; None when no pack has it. Raises BadPack."""
        known = self._known.get(oid)
        if known is not None:
            return known
        deltas: list[bytes] = []
        place = self.where.get(oid)
        while place is not None and not place[1].whole:
            pack, entry = place
            deltas.append(pack.inflate(entry))
            base = self.base(pack, entry)
            place = (pack, base) if base is not None and entry.base is not None else self.where.get(entry.base_oid or b"")
            if len(deltas) > _DEEPEST:
                raise BadPack(f"object {oid.hex()} in {pack.path.name} is a delta without end")
        if place is None:
            return None
        data = place[0].inflate(place[1])
        for delta in reversed(deltas):
            data = gitdelta.apply(data, delta)
        if self._kept > _KEPT:
            self._known.clear()
            self._kept = 0
        self._known[oid] = data
        self._kept += len(data)
        return data
