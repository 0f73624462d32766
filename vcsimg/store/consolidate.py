"""Many small packs → few large ones, while captures go on.

Packs are kept in levels by size, each level FAN times the one before. FAN packs of a level become one of the next, so a byte
is copied once a level, and there are never many packs: lookups try them one after another. Entries are copied as they
stand, but trees and texts become git deltas against those of the capture before: one tree entry changed out of many.

Nothing is ever in danger: the new pack is durable before the old ones go, and who reads an old pack keeps it open.
A `kill -9` at any point leaves at worst a duplicate, or a file that the next writer removes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vcsimg.errors import HostileImage
from vcsimg.store import gitdelta
from vcsimg.store.locks import Taken, locked
from vcsimg.store.objects import COMMIT, TREE, Entry, Oid, parse_tree
from vcsimg.store.pack import TYPES, PackWriter, entry_header
from vcsimg.store.packfile import OFS_DELTA, BadPack, Contents, PackEntry, PackFile, ofs_header

FAN = 8
TOO_MANY = 48
"""So many packs there never are: before one more is added, whoever adds it consolidates."""
_LOWEST = 16 << 10
_MOST_PACKS = 40
_MOST_DEPTH = 24
_TEXT_MOST = 64 << 10
_WORTH = 48
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
    count = 0
    level = 0
    for index, pack in enumerate(packs):
        this = _level(pack.size)
        count = count + 1 if this == level else 1
        level = this
        if count >= FAN and (index + 1 == len(packs) or _level(packs[index + 1].size) > level):
            return _by_age(packs[: index + 1])
    if len(packs) > _MOST_PACKS:
        return _by_age(packs[: len(packs) - _MOST_PACKS + FAN])
    return []


def _by_age(packs: Sequence[Candidate]) -> list[Candidate]:
    return sorted(packs, key=lambda pack: (pack.mtime, pack.path.name))


def _level(size: int) -> int:
    level = 0
    while size >= _LOWEST:
        size //= FAN
        level += 1
    return level


def consolidate(repository: Path, *, sync: bool, wait: bool = False) -> int:
    """Do what is due, until nothing is. Returns how many packs were made. Raises OSError.

    While another process does it, waits for that one or does nothing. A pack that is damaged is left alone, for `fsck`.
    """
    directory = repository / "objects" / "pack"
    work = repository / "vcsimg"
    made = 0
    try:
        with locked(work / "consolidate.lock", wait=wait):
            bad: set[Path] = set()
            while chosen := plan([pack for pack in candidates(directory) if pack.path not in bad]):
                try:
                    merge([pack.path for pack in chosen], directory, work, sync=sync)
                    made += 1
                except BadPack:
                    bad.update(pack.path for pack in chosen)
    except Taken:
        pass
    return made


def merge(paths: Sequence[Path], directory: Path, work: Path, *, sync: bool) -> None:
    """Make one pack of several (oldest first), and remove them. Raises BadPack, OSError: then nothing has changed."""
    packs: list[PackFile] = []
    try:
        for path in paths:
            packs.append(PackFile(path))
        writer = PackWriter(directory, work, sync=sync, paced=sync)
        try:
            _copy(packs, writer)
            keep = writer.finish()
        except BaseException:
            writer.abandon()
            raise
    finally:
        for pack in packs:
            pack.close()
    if keep is None:
        return
    keep.unlink()
    # An index of many packs would name packs that are gone; git makes a new one when it is asked to.
    (directory / "multi-pack-index").unlink(missing_ok=True)
    for path in paths:
        if path.stem != keep.stem:
            for suffix in (".idx", ".rev", ".bitmap", ".pack"):
                path.with_suffix(suffix).unlink(missing_ok=True)


def _copy(packs: Sequence[PackFile], writer: PackWriter) -> None:
    contents = Contents(list(packs))
    bases = Bases(packs, contents).find()
    placed: dict[Oid, int] = {}
    for pack in packs:
        for entry in pack.entries:
            if entry.oid in writer:
                continue
            place = writer.size
            placed[entry.oid] = place
            base = bases.get(entry.oid)
            if base is not None and base in placed and (made := _delta(contents, base, entry, place - placed[base])) is not None:
                writer.add_raw(entry.oid, made)
                continue
            raw = pack.raw(entry)
            if entry.base is not None:
                old_base = contents.base(pack, entry)
                assert old_base is not None
                header = ofs_header(entry_header(OFS_DELTA, entry.size), place - placed[old_base.oid])
                raw = header + raw[entry.data - entry.offset :]
            writer.add_raw(entry.oid, raw)


def _delta(contents: Contents, base: Oid, entry: PackEntry, back: int) -> bytes | None:
    """The entry as a delta against `base`, if that is much smaller."""
    old, new = contents.get(base), contents.get(entry.oid)
    if old is None or new is None:
        return None
    delta = gitdelta.make(old, new, tree=entry.kind == TYPES[TREE])
    made = ofs_header(entry_header(OFS_DELTA, len(delta)), back) + zlib.compress(delta, 6)
    return made if len(made) * 4 < (entry.end - entry.offset) * 3 else None


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
