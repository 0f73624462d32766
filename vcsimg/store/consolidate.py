"""Many small packs → few large ones, while captures go on.

Packs are kept in levels by size, each level FAN times the one before. FAN packs of a level become one of the next, so a byte
is copied once a level, and there are never many packs: lookups try them one after another. Entries are copied as they
stand, but trees and texts become git deltas against those of the capture before: one tree entry changed out of many.

Nothing is ever in danger: the new pack is durable before the old ones go, and who reads an old pack keeps it open.
A `kill -9` at any point leaves at worst a duplicate, or a file that the next writer removes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from zlib_ng import zlib_ng

from vcsimg.errors import HostileImage
from vcsimg.store import gitdelta
from vcsimg.store.locks import Taken, locked
from vcsimg.store.objects import COMMIT, TREE, Entry, Oid, parse_tree
from vcsimg.store.pack import TYPES, PackWriter, entry_header
from vcsimg.store.packfile import BODY_START, OFS_DELTA, BadPack, Contents, Index, PackEntry, PackFile, ofs_header, read_index

FAN = 8
TOO_MANY = 48
"""So many packs there never are: before one more is added, whoever adds it consolidates."""
_LOWEST = 16 << 10
_SMALL = 1 << 20
_MOST_OF_A_KIND = 20
_ENTRYWISE = 8192
_MOST_DEPTH = 50
_TEXT_MOST = 64 << 10
_WORTH = 48
SMALL_LOCK = "small-packs.lock"
LARGE_LOCK = "large-packs.lock"
_NOT_OURS = (".keep", ".promisor", ".mtimes")
_COMMIT = re.compile(rb"tree ([0-9a-f]{40})\n(?:parent ([0-9a-f]{40})\n)?")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pack that may be consolidated."""

    path: Path
    size: int
    mtime: int


def candidates(directory: Path) -> list[Candidate]:
    """The packs of a repository, smallest first, without those that somebody keeps."""
    names = {path.name for path in directory.iterdir()}
    found = []
    for name in names:
        base = name.removesuffix(".pack")
        if base == name or f"{base}.idx" not in names or any(base + suffix in names for suffix in _NOT_OURS):
            continue
        try:
            status = (directory / name).stat()
        except FileNotFoundError:
            continue
        found.append(Candidate(directory / name, status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda pack: pack.size)


def plan(packs: Sequence[Candidate]) -> list[Candidate]:
    """The packs to make one of, oldest first; none when there is nothing to do. `packs`: smallest first."""
    return plan_small(packs) or plan_large(packs)


def plan_small(packs: Sequence[Candidate]) -> list[Candidate]:
    """What is due among small packs: a matter of milliseconds."""
    return _due([pack for pack in packs if pack.size < _SMALL])


def plan_large(packs: Sequence[Candidate]) -> list[Candidate]:
    """What is due among large packs: it may take seconds, and does not touch small ones."""
    return _due([pack for pack in packs if pack.size >= _SMALL])


def _due(packs: Sequence[Candidate]) -> list[Candidate]:
    count = 0
    level = -1
    for index, pack in enumerate(packs):
        this = _level(pack.size)
        count = count + 1 if this == level else 1
        level = this
        if count >= FAN and (index + 1 == len(packs) or _level(packs[index + 1].size) > level):
            return _by_age(packs[: index + 1])
    if len(packs) > _MOST_OF_A_KIND:
        return _by_age(packs[: len(packs) - _MOST_OF_A_KIND + FAN])
    return []


def _by_age(packs: Sequence[Candidate]) -> list[Candidate]:
    return sorted(packs, key=lambda pack: (pack.mtime, pack.path.name))


def _level(size: int) -> int:
    level = 0
    while size >= _LOWEST:
        size //= FAN
        level += 1
    return level


def consolidate(repository: Path, *, sync: bool, most: int | None = None) -> int:
    """Do what is due, until nothing is, and leave merges of more than `most` bytes. Returns how many packs were made.

    Does nothing while another process does it. A pack that is damaged is left alone, for `fsck` to find. Raises OSError.
    """
    made = 0
    bad: set[Path] = set()

    def large(packs: Sequence[Candidate]) -> list[Candidate]:
        due = plan_large(packs)
        return due if most is None or sum(pack.size for pack in due) <= most else []

    while True:
        done = consolidate_small(repository, sync=sync)
        try:
            with locked(repository / "vcsimg" / LARGE_LOCK):
                done += _once(repository, large, bad, sync=sync)
        except Taken:
            pass
        made += done
        if not done:
            return made


def consolidate_small(repository: Path, *, sync: bool, wait: bool = False) -> int:
    """Do what is due among small packs, even while another process is at large ones. Raises OSError."""
    made = 0
    bad: set[Path] = set()
    try:
        with locked(repository / "vcsimg" / SMALL_LOCK, wait=wait):
            while _once(repository, plan_small, bad, sync=sync):
                made += 1
    except Taken:
        pass
    return made


def _once(repository: Path, due: Callable[[Sequence[Candidate]], list[Candidate]], bad: set[Path], *, sync: bool) -> int:
    """One merge, if one is due. Packs that cannot be merged are put into `bad`."""
    directory = repository / "objects" / "pack"
    while chosen := due([pack for pack in candidates(directory) if pack.path not in bad]):
        try:
            merge([pack.path for pack in chosen], directory, repository / "vcsimg", sync=sync)
        except BadPack:
            bad.update(pack.path for pack in chosen)
        except FileNotFoundError:
            gone = [pack.path for pack in chosen if not pack.path.exists()]
            if not gone:
                raise
            bad.update(gone)  # `git gc` was faster
        else:
            return 1
    return 0


def merge(paths: Sequence[Path], directory: Path, work: Path, *, sync: bool) -> None:
    """Make one pack of several (oldest first), and remove them. Raises BadPack, OSError: then nothing has changed."""
    writer = PackWriter(directory, work, sync=sync, paced=sync)
    try:
        newest = max(path.stat().st_mtime_ns for path in paths)
        indexes = [read_index(path.with_suffix(".idx")) for path in paths]
        if sum(len(index) for index in indexes) <= _ENTRYWISE or not _join(paths, indexes, writer):
            _copy(paths, writer)
        keep = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    if keep is None:
        return
    # As old as what is in it: the next merge puts it before packs of captures that were made meanwhile, whose bases it has.
    os.utime(keep.with_suffix(".pack"), ns=(newest, newest))
    keep.unlink()
    # An index of many packs would name packs that are gone; git makes a new one when it is asked to.
    (directory / "multi-pack-index").unlink(missing_ok=True)
    for path in paths:
        if path.stem != keep.stem:
            for suffix in (".idx", ".rev", ".bitmap", ".pack"):
                path.with_suffix(suffix).unlink(missing_ok=True)


def _join(paths: Sequence[Path], indexes: Sequence[Index], writer: PackWriter) -> bool:
    """Put whole packs behind one another: at this size there is little left to find between them, and it costs no work an object.

    Deltas say how far back their base is, so they stay right. False, and nothing done, when two packs share an object.
    """
    ids = np.sort(np.concatenate([index.ids for index in indexes]).view("S20"))
    if (ids[1:] == ids[:-1]).any():
        return False
    for path, index in zip(paths, indexes, strict=True):
        with PackFile(path, index) as pack:
            pack.check()
            writer.add_body(pack.body(), index.ids, index.offsets - np.uint64(BODY_START), index.crcs)
    return True


def _copy(paths: Sequence[Path], writer: PackWriter) -> None:
    """Copy packs entry by entry, leaving out what stands twice, and making deltas."""
    with ExitStack() as stack:
        packs = [stack.enter_context(PackFile(path)) for path in paths]
        contents = Contents(packs)
        bases = Bases(packs, contents).find()
        placed: dict[Oid, int] = {}
        for pack in packs:
            for entry in pack.entries:
                if entry.oid in placed:
                    continue
                place = writer.size
                placed[entry.oid] = place
                writer.add_raw(entry.oid, _entry(pack, entry, contents, bases.get(entry.oid), placed))


def _entry(pack: PackFile, entry: PackEntry, contents: Contents, base: Oid | None, placed: dict[Oid, int]) -> bytes:
    """The bytes of an entry at its new place: a new delta against `base` if that pays, else what it was."""
    place = placed[entry.oid]
    if base is not None and base in placed and (made := _delta(contents, base, entry, place - placed[base])) is not None:
        return made
    raw = pack.raw(entry)
    if entry.base is None:
        return raw
    old_base = contents.base(pack, entry)
    assert old_base is not None
    return ofs_header(entry_header(OFS_DELTA, entry.size), place - placed[old_base.oid]) + raw[entry.data - entry.offset :]


def _delta(contents: Contents, base: Oid, entry: PackEntry, back: int) -> bytes | None:
    """The entry as a delta against `base`, if that is much smaller."""
    old, new = contents.get(base), contents.get(entry.oid)
    if old is None or new is None:
        return None
    delta = gitdelta.make(old, new, tree=entry.kind == TYPES[TREE])
    made = ofs_header(entry_header(OFS_DELTA, len(delta)), back) + zlib_ng.compress(delta, 6)
    return made if len(made) * 8 < (entry.end - entry.offset) * 7 else None


class Bases:
    """For objects that stand whole: what stood at the same path in the capture before, if it is in these packs too."""

    def __init__(self, packs: Sequence[PackFile], contents: Contents) -> None:
        self._packs = packs
        self._contents = contents
        self._found: dict[Oid, Oid] = {}
        self._height: dict[Oid, int] = {}

    def find(self) -> dict[Oid, Oid]:
        """Object → base, for all that are worth it; no chain of deltas becomes longer than _MOST_DEPTH."""
        for pack in self._packs:
            for entry in pack.entries:
                if not entry.whole:
                    root, depth = self._root(entry.oid)
                    self._height[root] = max(self._height.get(root, 0), depth)
        for pack in self._packs:
            for entry in pack.entries:
                if entry.kind == TYPES[COMMIT]:  # one that is a delta was here before
                    tree, parent = self._commit(entry.oid)
                    if parent is not None and parent in self._contents.where:
                        self._propose(entry.oid, parent)
                        self._pair(tree, self._commit(parent)[0])
        return self._found

    def _root(self, oid: Oid) -> tuple[Oid, int]:
        """The whole object that an object's deltas begin at, and how many they are."""
        depth = 0
        while depth <= 2 * _MOST_DEPTH:
            base = self._found.get(oid)
            if base is None:
                entry = self._contents.base(*self._contents.where[oid])
                base = entry.oid if entry is not None else None
            if base is None:
                break
            oid = base
            depth += 1
        return oid, depth

    def _commit(self, oid: Oid) -> tuple[Oid, Oid | None]:
        found = _COMMIT.match(self._contents.get(oid) or b"")
        if found is None:
            raise BadPack(f"commit {oid.hex()} is not one")
        return bytes.fromhex(found[1].decode()), bytes.fromhex(found[2].decode()) if found[2] else None

    def _pair(self, new: Oid, old: Oid) -> None:
        """Walk two versions of a directory side by side, where they differ."""
        if new == old or new not in self._contents.where or old not in self._contents.where:
            return
        if not self._contents.where[new][1].whole:
            return  # an earlier consolidation has been here
        news, olds = self._tree(new), self._tree(old)
        self._propose(new, old)
        for name, entry in news.items():
            before = olds.get(name)
            if before is None or before.oid == entry.oid or before.is_tree != entry.is_tree:
                continue
            if entry.is_tree:
                self._pair(entry.oid, before.oid)
            else:
                self._propose(entry.oid, before.oid)

    def _tree(self, oid: Oid) -> dict[str, Entry]:
        try:
            return parse_tree(self._contents.get(oid) or b"", oid.hex())
        except HostileImage:
            return {}  # not one of ours: it is copied as it is

    def _propose(self, new: Oid, old: Oid) -> None:
        if new in self._found or new not in self._contents.where or old not in self._contents.where:
            return
        entry = self._contents.where[new][1]
        if not entry.whole or not _WORTH < entry.size <= _TEXT_MOST or self._contents.where[old][1].size > _TEXT_MOST:
            return
        root, depth = self._root(old)
        reach = depth + 1 + self._height.get(new, 0)
        if root == new or reach > _MOST_DEPTH:
            return
        self._found[new] = old
        self._height[root] = max(self._height.get(root, 0), reach)
