"""Indexes that lead beyond the ends of their packs.

libgit2 (1.9) does not compare the places that an index names with the pack's size (git_packfile_unpack_header): it reads beyond its mapping,
and the process dies of SIGSEGV. So indexes are looked through before libgit2 sees them, each once. All other damage it notices, a pack that is
cut off among it: that has not the checksum at its end that the index names.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

from vcsimg.store import gitcommand

_MAGIC = b"\xfftOc\0\0\0\x02"
_FANOUT = 8
_IDS = _FANOUT + 4 * 256
_TRAILER = 20
_FAR = 1 << 31
_MANY = 1 << 18
_known: set[tuple[str, int, int, int]] = set()


def misleading(packs: Path) -> list[Path]:
    """The indexes in a folder of packs that lead beyond the end of their packs. Raises OSError."""
    found = []
    for name in os.listdir(packs):
        if not name.endswith(".idx"):
            continue
        index = packs / name
        try:
            pack = index.with_suffix(".pack")
            status, size = index.stat(), pack.stat().st_size
            key = (str(index), status.st_mtime_ns, status.st_size, size)
            if key not in _known:
                if _leads_beyond(index, size) and _end(index, 2 * _TRAILER) == _end(pack, _TRAILER):
                    found.append(index)
                else:
                    _known.add(key)
        except FileNotFoundError:
            continue  # it was consolidated meanwhile
    return found


def mend(repository: Path) -> Iterator[str]:
    """Make new indexes for such packs, in a copy of a repository that may be changed; of those that cannot be indexed, take out the objects that
    are whole. Yields what was wrong. Raises OSError, StoreError."""
    for index in misleading(repository / "objects" / "pack"):
        pack = index.with_suffix(".pack")
        index.unlink()
        yield f"{index.relative_to(repository)}: it leads beyond the end of its pack"
        if gitcommand.attempt(repository, "index-pack", pack).returncode:
            away = pack.rename(repository / pack.name)
            gitcommand.feed(repository, away, "unpack-objects", "-r", "-q")
            away.unlink()


def _end(path: Path, before: int) -> bytes:
    """The checksum that stands so many bytes before the end of a file."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - before))
        return stream.read(_TRAILER)


def _leads_beyond(index: Path, size: int) -> bool:
    with index.open("rb") as stream:
        head = stream.read(_IDS)
        if not head.startswith(_MAGIC) or len(head) < _IDS:
            return False
        count = int.from_bytes(head[-4:], "big")
        if not count:
            return False
        if count >= _MANY or size >= _FAR:
            return _leads_far_beyond(index, count, size)
        stream.seek(_IDS + 24 * count)
        offsets = array("I")
        offsets.frombytes(stream.read(4 * count)[: 4 * count & ~3])
    if sys.byteorder == "little":
        offsets.byteswap()
    return max(offsets, default=0) >= size - _TRAILER


def _leads_far_beyond(index: Path, count: int, size: int) -> bool:
    """The same of many objects, or of a pack beyond 2 GiB: by numpy, which takes a while to import."""
    import numpy as np

    start = _IDS + 24 * count
    offsets = np.fromfile(index, ">u4", count, offset=start)
    rows = offsets[offsets >= _FAR] & (_FAR - 1)
    far = np.fromfile(index, ">u8", offset=start + 4 * count)[
        : max(0, index.stat().st_size - start - 4 * count - 2 * _TRAILER) // 8
    ]
    if len(offsets) < count or (len(rows) and int(rows.max()) >= len(far)):
        return True
    near = offsets[offsets < _FAR]
    return max(int(near.max(initial=0)), int(far[rows].max(initial=0))) >= size - _TRAILER
