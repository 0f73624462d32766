"""Snapshot → git objects. One `Writer` follows one branch and remembers what its last capture looked like.

So a capture costs what changed: chains of untouched pieces are neither read nor written, unchanged text is compared and
left, and of the tree only the path to what changed is written again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from vcsimg.image.pages import Indexes, PieceChange
from vcsimg.image.records import format_records
from vcsimg.image.region import RegionMap, format_map
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import chain as chains
from vcsimg.store import text
from vcsimg.store.files import FileWriter
from vcsimg.store.layout import DEEP, FEW_PIECES, FLAT, FORMAT_TEXT, file_path, is_section, piece_number, piece_path
from vcsimg.store.load import Loader, stored_pieces
from vcsimg.store.objects import BLOB, TREE, Entry, Objects, Oid, object_id
from vcsimg.store.older import is_old
from vcsimg.store.packseries import PackSeries
from vcsimg.store.pieces import Chain, Encoded, Encoder
from vcsimg.store.source import StoredPieces
from vcsimg.store.tree import TreeEditor

_IN_FLIGHT = 48 << 20
_SMALL = 64
"""Pages. Encoding fewer is over before another thread has begun; and with a second thread at work, each of the many short system calls of
the first waits for Python's lock when it returns (20 µs)."""
_TOGETHER = 2048
"""Pages of small changes that are encoded together."""
_ALONE = 3
_LARGE = 1024
"""Pages. Of pieces in which fewer change, the first three are encoded without other threads: often there are no more."""
_THOROUGH = 32
_MAINTAIN_LEAST = 4
_MAINTAIN_SHARE = 8
_WORKERS = min(4, os.cpu_count() or 1)

_T = TypeVar("_T")

FindFile = Callable[[str], Oid | None]
"""The directory of a mapped file, by SHA-256, somewhere in the repository where a reference keeps it."""


@dataclass
class Counts:
    """What a capture came to: pages that changed, and the regions that they lie in as (pid, start)."""

    pages: int = 0
    regions: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class _Upkeep:
    """How many chains of a capture were looked at, and merged or re-based: a share of them may be."""

    seen: int = 0
    done: int = 0

    @property
    def is_due(self) -> bool:
        return self.done < _MAINTAIN_LEAST + self.seen // _MAINTAIN_SHARE

    def noted(self, encoded: Encoded) -> Encoded:
        self.done += len(encoded.remove) > 0
        return encoded


class Writer:
    """Writes captures that follow one another. After any failure it must be thrown away: a new one reads its state again."""

    def __init__(self, objects: Objects, tip: str | None, root: Oid | None) -> None:
        self.tip = tip
        self._objects = objects
        self._where = f"capture {tip[:12]}" if tip else "new branch"
        self._root = root
        self._tree = TreeEditor(root, lambda oid: objects.tree(oid, self._where))
        self._chains: dict[tuple[int, int], Chain] = {}
        self._text: dict[tuple[str, ...], object] = {}
        self._regions: dict[int, RegionMap] = {}
        self._depths: dict[int, int] = {}
        """How far down the pieces of processes are, by pid: FLAT or DEEP."""
        self._shrunk: set[int] = set()
        """Processes that may have become ones of few pieces."""
        self._drafted: set[int] = set()
        """Processes whose memory, as it was a moment before the capture that is to be written, is in the tree already."""
        self._files: dict[str, Oid] = {}
        self._contents = FileWriter()
        self._present: set[Oid] | None = None
        """What the capture before the first has in files/: those that follow know their parts by their keys."""
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """End its threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def draft(self, pid: int, regions: RegionMap, changes: Iterable[PieceChange], pack: PackSeries) -> None:
        """Add the memory of a process that the branch does not have yet, as it is just before a capture: the next write() gets what has
        changed since. Raises ValueError if the branch has the process."""
        if self._old_regions(pid) is not None:
            raise ValueError(f"process {pid} is on the branch already")
        self._before(pid, regions, changes, pack)
        self._regions[pid] = regions
        self._drafted.add(pid)

    def write(self, snapshot: Snapshot, pack: PackSeries, find_file: FindFile) -> tuple[Oid, Counts]:
        """Add the objects of a capture to a pack. Returns the id of its tree. Raises DamagedImage, HostileImage."""
        counts = Counts()
        if self._root is not None:
            Loader(self._objects, self._root, self._where).check_format()
        self._put(pack, ("format",), FORMAT_TEXT)
        whole = snapshot.base is None
        self._text_file(pack, ("host",), snapshot.host, format_records)
        self._text_file(pack, ("tree",), snapshot.processes, text.format_processes)
        pids = {str(process.pid) for process in snapshot.processes}
        for name in self._tree.names(("proc",)):
            if name not in pids:
                self._remove(("proc", name))
                self._forget_process(int(name))
        for process in snapshot.processes:
            self._memory(process, pack, counts, whole=whole)
            self._process(process, pack)
        self._file_contents(snapshot, pack, find_file)
        tree = self._tree.write(lambda data: pack.add(TREE, data))
        self._root = tree
        return tree, counts

    def _forget_process(self, pid: int) -> None:
        self._regions.pop(pid, None)
        self._depths.pop(pid, None)
        self._drafted.discard(pid)
        for key in [key for key in self._chains if key[0] == pid]:
            del self._chains[key]

    # Text

    def _put(self, pack: PackSeries, path: tuple[str, ...], data: bytes) -> None:
        data = self._objects.seal(data)
        oid = object_id(BLOB, data)
        old = self._tree.get(path)
        if old is None or old.oid != oid:
            pack.add(BLOB, data, oid=oid)
            self._tree.set(path, Entry(False, oid))

    def _remove(self, path: tuple[str, ...]) -> None:
        self._tree.remove(path)
        for known in [known for known in self._text if known[: len(path)] == path]:
            del self._text[known]

    def _text_file(self, pack: PackSeries, path: tuple[str, ...], value: _T, form: Callable[[_T], bytes]) -> None:
        """A file of text: formatted only when its value differs from the one written last; absent when it is empty."""
        if path in self._text and self._text[path] == value:
            return
        data = form(value)
        if data:
            self._put(pack, path, data)
        else:
            self._tree.remove(path)
        self._text[path] = value

    def _process(self, process: Process, pack: PackSeries) -> None:
        base = ("proc", str(process.pid))
        self._text_file(pack, (*base, "mapped"), process.mapped, text.format_mapped)
        self._text_file(pack, (*base, "unreadable"), process.unreadable, text.format_unreadable)
        for thread in process.threads:
            self._text_file(pack, (*base, "threads", str(thread.tid)), thread, text.format_thread)
        self._only((*base, "threads"), {str(thread.tid) for thread in process.threads})
        for name, section in process.state.items():
            if not is_section(name):
                raise ValueError(f"{name!r} cannot be the name of a section")
            self._text_file(pack, (*base, name), section, format_records)
        self._only(base, {*process.state, "map", "mapped", "threads", "memory", "unreadable"})

    def _only(self, path: tuple[str, ...], names: set[str]) -> None:
        for name in self._tree.names(path):
            if name not in names:
                self._remove((*path, name))

    def _map(self, pid: int, regions: RegionMap, pack: PackSeries) -> None:
        base = ("proc", str(pid), "map")
        files = format_map(regions)
        for name, data in files.items():
            self._put(pack, (*base, name), data)
        self._only(base, set(files))

    # Memory

    def _renew(self, pid: int, regions: RegionMap, pack: PackSeries) -> None:
        """Write the memory of a process, if the capture before has it in an older format, as it is now."""
        base = ("proc", str(pid), "memory")
        entry = self._tree.get(base)
        if entry is None or not is_old(self._objects, entry, self._where):
            return
        stored = stored_pieces(self._objects, entry, regions, f"{self._where} process {pid}")
        self._tree.remove(base)
        self._before(pid, regions, _whole_pieces(stored), pack)

    def _before(self, pid: int, regions: RegionMap, changes: Iterable[PieceChange], pack: PackSeries) -> None:
        """Write the memory of a process as it was before the capture that follows."""
        encoder = Encoder(self._objects, regions, f"{self._where} process {pid}", whole=False)
        for number, encoded in self._encoded(encoder, pid, changes, set(), first=True):
            self._keep(pid, number, encoded, pack)
        pack.show()  # for a change that does not know what a page held before

    def _memory(self, process: Process, pack: PackSeries, counts: Counts, *, whole: bool) -> None:
        pid = process.pid
        before = self._old_regions(pid)
        if before is not None and pid not in self._regions:
            self._renew(pid, before, pack)
        drafted = pid in self._drafted
        replaces = whole and before is not None and not drafted
        encoder = Encoder(self._objects, process.regions, f"{self._where} process {pid}", whole=replaces)
        done: set[int] = set()
        changed = Counts()
        for number, encoded in self._encoded(encoder, pid, process.changes or (), done, first=before is None):
            self._keep(pid, number, encoded, pack)
            _count(changed, pid, process.regions, number, encoded.pages)
        if replaces:
            for number in self._numbers(pid) - done:
                self._drop(pid, number)
        elif before is not None and before != process.regions:
            self._unmapped(encoder, pid, before, process.regions, done, pack, changed)
        if drafted:
            self._drafted.remove(pid)
            changed = self._whole(pid, process.regions)
        counts.pages += changed.pages
        counts.regions |= changed.regions
        if drafted or before is None or before != process.regions:
            self._map(pid, process.regions, pack)
        self._fan_out(pid)
        self._regions[pid] = process.regions

    def _whole(self, pid: int, regions: RegionMap) -> Counts:
        """Everything that a process has, all of which this writer wrote, counted as changed."""
        counts = Counts()
        for (owner, number), chain in self._chains.items():
            if owner == pid:
                _count(counts, pid, regions, number, np.flatnonzero(chain.state.own).astype(np.uint16))
        return counts

    def _old_regions(self, pid: int) -> RegionMap | None:
        """The map of the capture before; None when the process was not in it."""
        known = self._regions.get(pid)
        if known is None and self._root is not None and self._tree.get(("proc", str(pid))) is not None:
            known = Loader(self._objects, self._root, self._where).regions(pid)
        return known

    def _numbers(self, pid: int) -> set[int]:
        found = set()
        for names in self._tree.walk(("proc", str(pid), "memory"), self._depth(pid)):
            number = piece_number(names)
            if number is not None:
                found.add(number)
        return found

    def _depth(self, pid: int) -> int:
        """How far down the pieces of a process are."""
        known = self._depths.get(pid)
        if known is None:
            names = self._tree.names(("proc", str(pid), "memory"))
            known = self._depths[pid] = FLAT if not names or piece_number((names[0],)) is not None else DEEP
            self._shrunk.add(pid)
        return known

    def _piece(self, pid: int, number: int) -> tuple[str, ...]:
        """The path of a piece."""
        return ("proc", str(pid), "memory", *piece_path(number, self._depth(pid)))

    def _fan_out(self, pid: int) -> None:
        """Spread many pieces over directories, so that none becomes large, and have few side by side, so that what leads to one that has
        changed is one tree. Between half of few and few it stays as it is."""
        base = ("proc", str(pid), "memory")
        depth = self._depth(pid)
        if depth == FLAT:
            due = len(self._tree.names(base)) > FEW_PIECES
        else:
            few = FEW_PIECES // 2
            due = pid in self._shrunk and len(list(islice(self._tree.walk(base, DEEP), few + 1))) <= few
        self._shrunk.discard(pid)
        if due:
            other = DEEP if depth == FLAT else FLAT
            for number in self._numbers(pid):
                self._tree.move((*base, *piece_path(number, depth)), (*base, *piece_path(number, other)))
            self._depths[pid] = other

    def _chain(self, encoder: Encoder, pid: int, number: int) -> Chain:
        """What is known of a piece; read from the repository when it is touched for the first time."""
        known = self._chains.get((pid, number))
        if known is None:
            node = self._tree.node(self._piece(pid, number))
            where = f"{self._where} process {pid} piece {number << PIECE_SHIFT:#x}"
            known = encoder.load(number, chains.links(node.entries, where)) if node is not None else Chain()
            self._chains[pid, number] = known
        return known

    def _encoded(
        self, encoder: Encoder, pid: int, changes: Iterable[PieceChange], done: set[int], *, first: bool
    ) -> Iterator[tuple[int, Encoded]]:
        """Encode changes, several at once, in their order, with a bounded amount of memory in flight."""
        waiting: deque[tuple[int, int, Future[Encoded]]] = deque()
        flying = 0
        small: list[tuple[Chain, PieceChange, bool]] = []
        small_pages = 0
        upkeep = _Upkeep()
        for count, change in enumerate(changes):
            quick = first or count >= _THOROUGH
            number = change.number
            if number in done:
                raise ValueError(f"piece {number << PIECE_SHIFT:#x} is named twice")
            done.add(number)
            chain = self._chain(encoder, pid, number)
            upkeep.seen += 1
            if not waiting and len(change.pages) < _SMALL:
                small.append((chain, change, quick))
                small_pages += len(change.pages)
                if small_pages >= _TOGETHER:
                    yield from _encoded_together(encoder, small, upkeep)
                    small_pages = 0
                continue
            yield from _encoded_together(encoder, small, upkeep)
            small_pages = 0
            if count < _ALONE and len(change.pages) < _LARGE:
                yield number, upkeep.noted(encoder.encode(chain, change, maintain=upkeep.is_due, quick=quick))
                continue
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, "vcsimg-encode")
            size = change.new.nbytes + (change.old.nbytes if change.old is not None else 0)
            waiting.append((number, size, self._pool.submit(encoder.encode, chain, change, maintain=upkeep.is_due, quick=quick)))
            del change
            flying += size
            while waiting and (flying > _IN_FLIGHT or waiting[0][2].done()):
                number, size, future = waiting.popleft()
                flying -= size
                yield number, upkeep.noted(future.result())
        yield from _encoded_together(encoder, small, upkeep)
        for number, _, future in waiting:
            yield number, future.result()

    def _keep(self, pid: int, number: int, encoded: Encoded, pack: PackSeries) -> None:
        if encoded.gone:
            self._drop(pid, number)
        elif encoded.blobs:
            entries = self._tree.change(self._piece(pid, number)).entries
            for name in encoded.remove:
                del entries[name]
            for blob in encoded.blobs:
                if blob.oid not in pack:
                    pack.add_entry(blob.oid, blob.entry)
                entries[blob.name] = Entry(False, blob.oid)

    def _drop(self, pid: int, number: int) -> None:
        self._tree.remove(self._piece(pid, number))
        self._shrunk.add(pid)
        self._chains.pop((pid, number), None)

    def _unmapped(
        self, encoder: Encoder, pid: int, before: RegionMap, after: RegionMap, done: set[int], pack: PackSeries, counts: Counts
    ) -> None:
        """Take own content away that lay in regions which are gone, as far as no change has named it."""
        for number in sorted(_touched(before, after) - done):
            start = number << PIECE_SHIFT
            if self._tree.node(self._piece(pid, number)) is None:
                continue
            if next(after.overlapping(start, start + PIECE_SIZE), None) is None:
                self._drop(pid, number)
                continue
            chain = self._chain(encoder, pid, number)
            nothing = PieceChange(number, np.zeros(0, np.uint16), np.zeros((0, PAGE_SIZE), np.uint8), np.zeros(0, bool))
            encoded = encoder.encode(chain, nothing, maintain=False)
            self._keep(pid, number, encoded, pack)
            _count(counts, pid, before, number, encoded.pages)

    # Files

    def _file_contents(self, snapshot: Snapshot, pack: PackSeries, find_file: FindFile) -> None:
        wanted = {file.sha256 for process in snapshot.processes for file in process.mapped if file.sha256 is not None}
        for process in snapshot.processes:
            # Files that no path leads to: deleted ones, and those of memfd_create(2); also such as are nowhere but in a message.
            for section in ("files", "sockets"):
                wanted.update(filter(None, (record.get("content") for record in process.section(section))))
            wanted.update(filter(None, (record.get("sha256") for record in process.section("contents"))))
        if self._present is None:
            self._present = set(self._objects_below(("files",)))
        for fan in self._tree.names(("files",)):
            for sha256 in self._tree.names(("files", fan)):
                if sha256 not in wanted:
                    self._tree.remove(("files", fan, sha256))
        self._contents.begin()
        for sha256 in sorted(wanted):
            path = file_path(sha256)
            content = snapshot.files.get(sha256)
            if self._tree.get(path) is not None:
                self._contents.keep(content)
                continue
            oid = self._files.get(sha256)
            if oid is None and (content is None or content.parts is None):
                oid = find_file(sha256)
            if oid is None and content is not None:
                oid = self._contents.store(
                    content,
                    lambda data, stored: self._add_once(pack, BLOB, self._objects.seal(data), stored=stored),
                    lambda data: self._add_once(pack, TREE, data),
                )
                if oid is None and snapshot.facts is not None:
                    snapshot.facts.notes.append(f"mapped file {sha256[:12]} changed while it was stored: its content is missing")
            if oid is not None:
                if content is None or content.parts is None:
                    self._files[sha256] = oid  # of the others there are ever new ones
                self._tree.set(path, Entry(True, oid))

    def _objects_below(self, path: tuple[str, ...]) -> Iterator[Oid]:
        node = self._tree.node(path)
        for name, entry in list(node.entries.items()) if node is not None else ():
            yield entry.oid
            if entry.is_tree:
                yield from self._objects_below((*path, name))

    def _add_once(self, pack: PackSeries, kind: bytes, data: bytes, *, stored: bool = False) -> Oid:
        """Add an object, unless the capture before has it."""
        oid = object_id(kind, data)
        return oid if oid in (self._present or ()) else pack.add(kind, data, stored=stored, oid=oid)


def _encoded_together(
    encoder: Encoder, small: list[tuple[Chain, PieceChange, bool]], upkeep: _Upkeep
) -> Iterator[tuple[int, Encoded]]:
    """Encode changes of few pages, each (chain, change, quick), in their order, and empty the list."""
    deltas = encoder.encode_together([(chain, change) for chain, change, _ in small])
    for (chain, change, quick), delta in zip(small, deltas, strict=True):
        if delta is not None:
            encoded = encoder.appended(chain, change.number, delta, maintain=upkeep.is_due)
        else:
            encoded = encoder.encode(chain, change, maintain=upkeep.is_due, quick=quick)
        yield change.number, upkeep.noted(encoded)
    small.clear()


def _whole_pieces(stored: StoredPieces) -> Iterator[PieceChange]:
    for number in stored.numbers():
        piece = stored.piece(number)
        if piece is not None:
            pages = np.flatnonzero(piece.own).astype(np.uint16)
            yield PieceChange(number, pages, piece.data[pages], np.ones(len(pages), bool))


def _touched(before: RegionMap, after: RegionMap) -> set[int]:
    """Pieces in which an address was in a region before and is in none after."""
    pieces: set[int] = set()
    for region in before:
        position = region.start
        for other in after.overlapping(region.start, region.end):
            if other.start > position:
                pieces.update(range(position >> PIECE_SHIFT, (other.start + PIECE_SIZE - 1) >> PIECE_SHIFT))
            position = max(position, other.end)
        if position < region.end:
            pieces.update(range(position >> PIECE_SHIFT, (region.end + PIECE_SIZE - 1) >> PIECE_SHIFT))
    return pieces


def _count(counts: Counts, pid: int, regions: RegionMap, number: int, pages: Indexes) -> None:
    counts.pages += len(pages)
    start = number << PIECE_SHIFT
    found = None
    for page in pages.tolist():
        address = start + (page << PAGE_SHIFT)
        if found is None or address >= found.end:
            found = regions.find(address)
            if found is not None:
                counts.regions.add((pid, found.start))
