"""Writes git packs (gitformat-pack(5)): pack version 2, index version 2.

libgit2 deflates every blob at level 6 and hashes at a sixth of hashlib's speed; payloads here are compressed already,
so they go into stored deflate blocks. A pack becomes visible only whole:

    work/NAME.tmp ──fsync──▶ objects/pack/pack-X.keep, pack-X.pack, pack-X.idx ──fsync of the directory──▶ refs may move

The .keep file tells a `git repack` or `git gc` that runs at the same time that this pack stays, although no reference
leads to its objects yet. It goes when the reference has moved.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

from vcsimg.image.units import WRITE_SIZE
from vcsimg.store.leftovers import owner
from vcsimg.store.objects import BLOB, COMMIT, TAG, TREE, Oid, object_id

TYPES = {COMMIT: 1, TREE: 2, BLOB: 3, TAG: 4}
_IN_MEMORY = 8 << 20
_LARGE_OFFSET = 1 << 31
_BLOCK = 0xFFFF


Ids = npt.NDArray[np.void]
"""Object ids, 20 bytes each: shape (n,), type V20."""


class PackEntry(NamedTuple):
    """An object as it stands in a pack, and the CRC-32 of that."""

    content: bytes
    crc: int


def pack_entry(kind: bytes, data: bytes, *, stored: bool = False) -> PackEntry:
    """The entry of an object. `stored`: do not try to deflate it."""
    # Of a tree only the names shrink, and the quickest level finds these.
    content = entry_header(TYPES[kind], len(data)) + (_stored(data) if stored else zlib_ng.compress(data, 1 if kind == TREE else 2))
    return PackEntry(content, zlib_ng.crc32(content))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of some bytes, not compressed: stored blocks (RFC 1951, 3.2.4). The libraries' own level 0 takes longer."""
    whole = memoryview(data)
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(data) or 1, _BLOCK):
        block = whole[start : start + _BLOCK]
        # BFINAL and type 0, then the length, once as it is and once with all bits turned.
        parts += (struct.pack("<BHH", start + _BLOCK >= len(data), len(block), len(block) ^ _BLOCK), block)
    parts.append(struct.pack(">I", zlib_ng.adler32(data)))
    return b"".join(parts)


class Packed(NamedTuple):
    """One object of a pack: where its entry begins, and the entry's CRC-32."""

    oid: Oid
    offset: int
    crc: int


def entry_header(kind: int, size: int) -> bytes:
    """Type and size in front of an entry: four bits of the size, then seven a byte."""
    byte = kind << 4 | size & 15
    size >>= 4
    out = bytearray()
    while size:
        out.append(byte | 0x80)
        byte = size & 0x7F
        size >>= 7
    out.append(byte)
    return bytes(out)


class PackWriter:
    """Collects objects into one pack. Small packs stay in memory until they are finished.

    `paced`: write to the disk bit by bit. A file system's journal makes every fsync wait for what others have dirtied:
    without it a capture would wait for a consolidation.
    """

    def __init__(self, pack_directory: Path, work: Path, *, sync: bool, paced: bool = False) -> None:
        self._paced = paced
        self._directory = pack_directory
        self._owner = owner(work)
        self._sync = sync
        self._objects: list[Packed] = []
        self._bodies: list[tuple[Ids, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]] = []
        self._ids: set[Oid] = set()
        self._parts: list[bytes] = []
        self._held = 0
        self._offset = 12
        self._file: int | None = None
        self._path: Path | None = None
        self._index: Path | None = None
        self._base: Path | None = None

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._ids

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._offset

    def add(self, kind: bytes, data: bytes, *, stored: bool = False, oid: Oid | None = None) -> Oid:
        """Add an object, unless it is there already. `stored`: do not try to deflate it. `oid`: its id, if known."""
        if oid is None:
            oid = object_id(kind, data)
        if oid in self._ids:
            return oid
        self.add_entry(oid, pack_entry(kind, data, stored=stored))
        return oid

    def add_raw(self, oid: Oid, entry: bytes) -> None:
        """Add an entry as it stands in a pack. It must not be there yet."""
        self.add_entry(oid, PackEntry(entry, zlib_ng.crc32(entry)))

    def add_entry(self, oid: Oid, entry: PackEntry) -> None:
        """Add an entry that pack_entry() made. It must not be there yet."""
        self._ids.add(oid)
        self._objects.append(Packed(oid, self._offset, entry.crc))
        self._offset += len(entry.content)
        self._parts.append(entry.content)
        self._held += len(entry.content)
        if self._held >= _IN_MEMORY:
            self._spill()

    def add_body(self, blocks: Iterator[bytes], ids: Ids, offsets: npt.NDArray[np.uint64], crcs: npt.NDArray[np.uint32]) -> None:
        """Add many entries at once as they stand in another pack, in `blocks`; offsets (n,) from the first block's beginning.

        None of the ids may be there yet, or be added later.
        """
        self._bodies.append((ids, offsets + np.uint64(self._offset), crcs))
        for block in blocks:
            self._parts.append(block)
            self._offset += len(block)
            self._held += len(block)
            if self._held >= _IN_MEMORY:
                self._spill()

    def _table(self) -> tuple[Ids, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """Ids, offsets and CRCs of everything added."""
        own = (
            np.array([item.oid for item in self._objects], "V20"),
            np.array([item.offset for item in self._objects], np.uint64),
            np.array([item.crc for item in self._objects], np.uint32),
        )
        tables = [own, *self._bodies]
        return (
            np.concatenate([table[0] for table in tables]),
            np.concatenate([table[1] for table in tables]),
            np.concatenate([table[2] for table in tables]),
        )

    def _spill(self) -> None:
        if self._file is None:
            self._file, self._path = self._owner.unfinished()
            _write(self._file, [bytes(12)])
        _write(self._file, self._parts)
        if self._paced:
            os.fdatasync(self._file)
        self._parts.clear()
        self._held = 0

    def finish(self) -> Path | None:
        """Make the pack durable and visible, with a .keep file. Returns the path of that file, or None for an empty pack."""
        ids, offsets, crcs = self._table()
        if not len(ids):
            return None
        header = struct.pack(">4sII", b"PACK", 2, len(ids))
        if self._file is None:
            body = b"".join(self._parts)
            digest = hashlib.sha1(header + body, usedforsecurity=False).digest()
            self._file, self._path = self._owner.unfinished()
            _write(self._file, [header, body, digest])
        else:
            _write(self._file, self._parts)
            os.pwrite(self._file, header, 0)
            with ThreadPoolExecutor(1) as pool:
                # The disk writes what is there while it is hashed.
                written = pool.submit(os.fdatasync, self._file) if self._sync else None
                digest = _hash_file(self._file)
                if written is not None:
                    written.result()
            os.lseek(self._file, 0, os.SEEK_END)
            _write(self._file, [digest])
        self._parts.clear()
        os.fchmod(self._file, 0o400)
        if self._sync:
            os.fsync(self._file)
        os.close(self._file)
        self._file = None
        index, self._index = self._owner.unfinished()
        try:
            _write(index, [format_index(ids, offsets, crcs, digest)])
            os.fchmod(index, 0o400)
            if self._sync:
                os.fsync(index)
        finally:
            os.close(index)
        assert self._path is not None
        return self._publish(self._path, self._index, digest)

    def _publish(self, pack: Path, index: Path, digest: bytes) -> Path:
        base = self._directory / f"pack-{digest.hex()}"
        if not base.with_suffix(".pack").exists():
            self._base = base
        keep = base.with_suffix(".keep")
        self._owner.keep(keep)
        pack.rename(base.with_suffix(".pack"))
        self._path = None
        index.rename(base.with_suffix(".idx"))
        self._index = None
        if self._sync:
            sync_directory(self._directory)
        return keep

    def abandon(self) -> None:
        """Take everything away again: nothing refers to it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        visible = [self._base.with_suffix(suffix) for suffix in (".idx", ".pack", ".keep")] if self._base is not None else []
        for path in (self._path, self._index, *visible):
            if path is not None:
                path.unlink(missing_ok=True)
        self._path = self._index = self._base = None


def format_index(ids: Ids, offsets: npt.NDArray[np.uint64], crcs: npt.NDArray[np.uint32], pack_digest: bytes) -> bytes:
    """A pack index, version 2: fan-out, ids, CRCs, offsets, offsets beyond 2 GiB, two checksums. Arrays (n,), in any order."""
    order = np.argsort(ids.view("S20"), kind="stable")
    ids, offsets, crcs = ids[order], offsets[order], crcs[order]
    first = np.frombuffer(ids.tobytes(), np.uint8)[::20]
    fanout = np.cumsum(np.bincount(first, minlength=256))
    large = offsets[offsets >= _LARGE_OFFSET]
    small = offsets.copy()
    small[offsets >= _LARGE_OFFSET] = _LARGE_OFFSET | np.arange(len(large), dtype=np.uint64)
    body = b"".join(
        (
            b"\xfftOc\0\0\0\x02",
            fanout.astype(">u4").tobytes(),
            ids.tobytes(),
            crcs.astype(">u4").tobytes(),
            small.astype(">u4").tobytes(),
            large.astype(">u8").tobytes(),
            pack_digest,
        )
    )
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(fd: int, parts: list[bytes]) -> None:
    """Write parts one behind the other: small ones together, large ones as they are."""
    small: list[bytes] = []
    held = 0
    for part in parts:
        if len(part) < WRITE_SIZE:
            small.append(part)
            held += len(part)
            if held < WRITE_SIZE:
                continue
            part = b""
        if small:
            _write_all(fd, b"".join(small))
            small.clear()
            held = 0
        _write_all(fd, part)
    _write_all(fd, b"".join(small))


def _write_all(fd: int, part: bytes) -> None:
    data = memoryview(part)
    while data:
        data = data[os.write(fd, data[:WRITE_SIZE]) :]


def _hash_file(fd: int) -> bytes:
    hasher = hashlib.sha1(usedforsecurity=False)
    position = 0
    while block := os.pread(fd, 4 << 20, position):
        hasher.update(block)
        position += len(block)
    return hasher.digest()
