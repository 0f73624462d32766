"""The objects of one capture, in one pack or, if there are many, in several.

A pack's checksum covers its header, and that holds the number of objects: only a pack that is over can be hashed. So that a first capture of
gigabytes does not wait for this at its end, packs are ended on the way, and hashed and made durable by another thread while the
next one fills. Each is at least half as large as all before it, so they are few, and the last, which is waited for, is a third of all at most.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from vcsimg.store.objects import Oid, object_id
from vcsimg.store.pack import PackEntry, PackWriter, pack_entry

_LEAST = 96 << 20


class PackSeries:
    """Collects the objects of a capture. Packs that are ended become visible at once, each with its .keep file."""

    def __init__(self, pack_directory: Path, work: Path, *, sync: bool) -> None:
        self._directory = pack_directory
        self._work = work
        self._sync = sync
        self._pack = self._begin()
        self._ended: list[PackWriter] = []
        self._ending: list[Future[Path | None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._before = 0

    def _begin(self) -> PackWriter:
        return PackWriter(self._directory, self._work, sync=self._sync)

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._pack or any(oid in pack for pack in self._ended)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._before + self._pack.size

    def add(self, kind: bytes, data: bytes, *, stored: bool = False, oid: Oid | None = None) -> Oid:
        """Add an object, unless it is there already. `stored`: do not try to deflate it. `oid`: its id, if known."""
        if oid is None:
            oid = object_id(kind, data)
        if oid not in self:
            self.add_entry(oid, pack_entry(kind, data, stored=stored))
        return oid

    def add_entry(self, oid: Oid, entry: PackEntry) -> None:
        """Add an entry that pack_entry() made. It must not be there yet. Raises OSError, also of a pack that was ended before."""
        self._pack.add_entry(oid, entry)
        if self._pack.size >= max(_LEAST, self._before // 2):
            self._end()

    def _end(self) -> None:
        for future in self._ending:
            if future.done():
                future.result()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "vcsimg-pack")
        self._before += self._pack.size
        self._ended.append(self._pack)
        self._ending.append(self._pool.submit(self._pack.finish))
        self._pack = self._begin()

    def show(self) -> None:
        """Make everything so far readable, as what is in ended packs is. Raises OSError."""
        self._end()
        for future in self._ending:
            future.result()

    def finish(self) -> list[Path]:
        """Make all packs durable and visible. Returns their .keep files. Raises OSError."""
        last = self._pack.finish()
        keeps = [future.result() for future in self._ending] + [last]
        self._stop()
        return [keep for keep in keeps if keep is not None]

    def abandon(self) -> None:
        """Take everything away again: nothing refers to it."""
        for future in self._ending:
            with suppress(OSError):
                future.result()
        self._stop()
        for pack in (*self._ended, self._pack):
            pack.abandon()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
