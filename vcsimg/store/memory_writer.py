"""Memory of processes → chains of pieces, and the trees that lead to them. What the last capture looked like is remembered by names and hashes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from vcsimg.image.pages import Indexes, PieceChange
from vcsimg.image.region import RegionMap
from vcsimg.image.snapshot import Process
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import chain as chains
from vcsimg.store.layout import DEEP, FEW_PIECES, FLAT, piece_number, piece_path
from vcsimg.store.load import stored_pieces
from vcsimg.store.objects import Entry, Objects
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


class MemoryWriter:
    """Writes below proc/<pid>/memory of a tree, capture after capture. `where` names the capture that it begins with, in errors."""

    def __init__(self, objects: Objects, tree: TreeEditor, where: str) -> None:
        self._objects = objects
        self._tree = tree
        self._where = where
        self._chains: dict[tuple[int, int], Chain] = {}
        self._known: set[int] = set()
        """Processes whose memory it has written."""
        self._depths: dict[int, int] = {}
        """How far down the pieces of processes are, by pid: FLAT or DEEP."""
        self._shrunk: set[int] = set()
        """Processes that may have become ones of few pieces."""
        self._drafted: set[int] = set()
        """Processes whose memory, as it was a moment before the capture that is to be written, is in the tree already."""
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """End its threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def forget(self, pid: int) -> None:
        """A process is not in the capture any more."""
        self._known.discard(pid)
        self._depths.pop(pid, None)
        self._drafted.discard(pid)
        for key in [key for key in self._chains if key[0] == pid]:
            del self._chains[key]

    def draft(self, pid: int, regions: RegionMap, changes: Iterable[PieceChange], pack: PackSeries) -> None:
        """Add the memory of a process that the tree does not have, as it is just before a capture: write() gets what has changed since."""
        self._before(pid, regions, changes, pack)
        self._known.add(pid)
        self._drafted.add(pid)

    def write(self, process: Process, before: RegionMap | None, pack: PackSeries, *, whole: bool, alone: bool = False) -> Counts:
        """Write what has changed of a process. `before`: its map in the capture before, None where it was not in it; `whole`: the changes do not follow
        that capture; `alone`: by this thread only. Raises DamagedImage, HostileImage."""
        pid = process.pid
        if before is not None and pid not in self._known:
            self._renew(pid, before, pack)
        drafted = pid in self._drafted
        replaces = whole and before is not None and not drafted
        encoder = Encoder(self._objects, process.regions, f"{self._where} process {pid}", whole=replaces)
        done: set[int] = set()
        changed = Counts()
        for number, encoded in self._encoded(encoder, pid, process.changes or (), done, first=before is None, alone=alone):
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
        self._fan_out(pid)
        self._known.add(pid)
        return changed

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

    def _whole(self, pid: int, regions: RegionMap) -> Counts:
        """Everything that a process has, all of which this writer wrote, counted as changed."""
        counts = Counts()
        for (owner, number), chain in self._chains.items():
            if owner == pid:
                _count(counts, pid, regions, number, np.flatnonzero(chain.state.own).astype(np.uint16))
        return counts

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
        self, encoder: Encoder, pid: int, changes: Iterable[PieceChange], done: set[int], *, first: bool, alone: bool = False
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
            if alone or (count < _ALONE and len(change.pages) < _LARGE):
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
