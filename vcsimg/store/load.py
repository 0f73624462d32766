"""A commit's tree → Snapshot. Everything read is checked: an image is untrusted."""

from __future__ import annotations

import re
from collections.abc import Callable

from vcsimg.errors import HostileImage, NewerFormat
from vcsimg.image.pages import ImageMemory, PieceSource
from vcsimg.image.records import parse_records
from vcsimg.image.region import RegionMap, parse_map
from vcsimg.image.snapshot import CaptureFacts, Process, Section, Snapshot
from vcsimg.store import text
from vcsimg.store.layout import FORMAT, is_section, parse_id
from vcsimg.store.objects import BLOB, Entry, Objects, Oid
from vcsimg.store.older import OldPieces, is_old
from vcsimg.store.source import StoredFiles, StoredPieces, Trees

_FORMAT = re.compile(rb"vcsimg ([1-9][0-9]{0,8})\n\Z")
_MAP_NAME = re.compile(r"[0-9a-f]{12,16}\Z")


def stored_pieces(objects: Objects, memory: Entry | None, regions: RegionMap, where: str) -> StoredPieces:
    """The pieces in a process's directory of memory (None: there is none), of whatever format. Raises HostileImage."""
    if memory is not None and not memory.is_tree:
        raise HostileImage(where, "its memory is no directory")
    made = OldPieces if memory is not None and is_old(objects, memory, where) else StoredPieces
    return made(objects, memory.oid if memory else None, regions, where)


class Loader:
    """Reads one capture. `where` names it in errors."""

    def __init__(self, objects: Objects, root: Oid, where: str) -> None:
        self._objects = objects
        self._trees = Trees(objects, root, where)
        self._where = where

    def snapshot(self, facts: CaptureFacts, source: Callable[[int, StoredPieces], PieceSource] | None = None) -> Snapshot:
        """The image; `source(pid, stored)`, if given, stands between memory and store.

        Raises DamagedImage, HostileImage, NewerFormat.
        """
        self.check_format()
        files = StoredFiles(self._objects, self._trees, self._where)
        named = text.parse_processes(self._blob(("tree",), required=True), f"{self._where} tree")
        host = self._blob(("host",))
        return Snapshot(
            processes=tuple(self._process(pid, parent, name, files, source) for pid, parent, name in named),
            host=parse_records(host, f"{self._where} host"),
            facts=facts,
        )

    def check_format(self) -> None:
        """Raises HostileImage when this is no capture, NewerFormat when it is one of a later vcsimg."""
        found = _FORMAT.match(self._blob(("format",), required=True))
        if found is None:
            raise HostileImage(self._where, "its format file is not one of vcsimg")
        if int(found[1]) > FORMAT:
            raise NewerFormat(self._where, int(found[1]), FORMAT)

    def regions(self, pid: int) -> RegionMap:
        """The map of a process."""
        files = {
            name: self._objects.read(entry.oid, BLOB, f"{self._where} process {pid} map/{name}")
            for name, entry in self._directory(("proc", str(pid), "map")).items()
            if self._is_file(entry, _MAP_NAME.match(name) is not None, f"process {pid} map/{name}")
        }
        return parse_map(files, f"{self._where} process {pid} map")

    def pieces(self, pid: int, regions: RegionMap) -> StoredPieces:
        """The memory of a process."""
        memory = self._trees.find(("proc", str(pid), "memory"))
        return stored_pieces(self._objects, memory, regions, f"{self._where} process {pid}")

    def _process(
        self, pid: int, parent: int, name: str, files: StoredFiles, source: Callable[[int, StoredPieces], PieceSource] | None
    ) -> Process:
        where = f"{self._where} process {pid}"
        base = ("proc", str(pid))
        if not self._directory(base):
            raise HostileImage(self._where, f"it names process {pid}, and has nothing of it")
        regions = self.regions(pid)
        mapped = text.parse_mapped(self._blob((*base, "mapped")), f"{where} mapped")
        unreadable = text.parse_unreadable(self._blob((*base, "unreadable")), f"{where} unreadable")
        threads = []
        for tid_name, entry in self._directory((*base, "threads")).items():
            tid = parse_id(tid_name)
            if self._is_file(entry, tid is not None, f"process {pid} threads/{tid_name}") and tid is not None:
                at = f"{where} threads/{tid}"
                threads.append(text.parse_thread(tid, self._objects.read(entry.oid, BLOB, at), at))
        threads.sort(key=lambda thread: (thread.tid != pid, thread.tid))
        state: dict[str, Section] = {}
        for section, entry in self._directory(base).items():
            if is_section(section) and self._is_file(entry, True, f"process {pid} {section}"):
                state[section] = parse_records(self._objects.read(entry.oid, BLOB, f"{where} {section}"), f"{where} {section}")
        process = Process(pid, parent, name, regions, tuple(threads), mapped, state, unreadable)
        stored = self.pieces(pid, regions)
        memory = ImageMemory(regions, source(pid, stored) if source else stored, process.backing(), files, unreadable)
        return Process(pid, parent, name, regions, process.threads, mapped, state, unreadable, memory)

    def _blob(self, path: tuple[str, ...], *, required: bool = False) -> bytes:
        entry = self._trees.find(path)
        where = f"{self._where} {'/'.join(path)}"
        if entry is None:
            if required:
                raise HostileImage(self._where, f"it has no {'/'.join(path)}: this is no capture")
            return b""
        if entry.is_tree:
            raise HostileImage(where, "it is a directory")
        return self._objects.read(entry.oid, BLOB, where)

    def _directory(self, path: tuple[str, ...]) -> dict[str, Entry]:
        entry = self._trees.find(path)
        if entry is None:
            return {}
        if not entry.is_tree:
            raise HostileImage(f"{self._where} {'/'.join(path)}", "it is no directory")
        return self._trees.list(entry.oid)

    def _is_file(self, entry: Entry, named: bool, what: str) -> bool:
        if entry.is_tree or not named:
            raise HostileImage(f"{self._where} {what}", "it does not belong here")
        return True
