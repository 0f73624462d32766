"""Snapshot → git objects. One `Writer` follows one branch and remembers what its last capture looked like.

So a capture costs what changed: chains of untouched pieces are neither read nor written, unchanged text is compared and
left, and of the tree only the path to what changed is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vcsimg.image.pages import PieceChange
from vcsimg.image.records import format_records
from vcsimg.image.region import RegionMap, format_map
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.store import text
from vcsimg.store.files import FileWriter
from vcsimg.store.layout import FORMAT_TEXT, file_path, is_section
from vcsimg.store.load import Loader
from vcsimg.store.memory_writer import Counts, MemoryWriter
from vcsimg.store.objects import BLOB, TREE, Entry, Objects, Oid, object_id
from vcsimg.store.packseries import PackSeries
from vcsimg.store.tree import TreeEditor

_T = TypeVar("_T")

FindFile = Callable[[str], Oid | None]
"""The directory of a mapped file, by SHA-256, somewhere in the repository where a reference keeps it."""


class Writer:
    """Writes captures that follow one another. After any failure it must be thrown away: a new one reads its state again."""

    def __init__(self, objects: Objects, tip: str | None, root: Oid | None) -> None:
        self.tip = tip
        self._objects = objects
        self._where = f"capture {tip[:12]}" if tip else "new branch"
        self._root = root
        self._tree = TreeEditor(root, lambda oid: objects.tree(oid, self._where))
        self._text: dict[tuple[str, ...], object] = {}
        self._regions: dict[int, RegionMap] = {}
        self._memory = MemoryWriter(objects, self._tree, self._where)
        self._files: dict[str, Oid] = {}
        self._contents = FileWriter()
        self._present: set[Oid] | None = None
        """What the capture before the first has in files/: those that follow know their parts by their keys."""

    def close(self) -> None:
        """End its threads."""
        self._memory.close()

    def draft(self, pid: int, regions: RegionMap, changes: Iterable[PieceChange], pack: PackSeries) -> None:
        """Add the memory of a process that the branch does not have yet, as it is just before a capture: the next write() gets what has
        changed since. Raises ValueError if the branch has the process."""
        if self._old_regions(pid) is not None:
            raise ValueError(f"process {pid} is on the branch already")
        self._memory.draft(pid, regions, changes, pack)
        self._regions[pid] = regions

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
                self._regions.pop(int(name), None)
                self._memory.forget(int(name))
        for process in snapshot.processes:
            before = self._old_regions(process.pid)
            changed = self._memory.write(process, before, pack, whole=whole, alone=snapshot.crowded)
            counts.pages += changed.pages
            counts.regions |= changed.regions
            self._process(process, before, pack)
        self._file_contents(snapshot, pack, find_file)
        tree = self._tree.write(lambda data: pack.add(TREE, data))
        self._root = tree
        return tree, counts

    def _old_regions(self, pid: int) -> RegionMap | None:
        """The map of the capture before; None when the process was not in it."""
        known = self._regions.get(pid)
        if known is None and self._root is not None and self._tree.get(("proc", str(pid))) is not None:
            known = Loader(self._objects, self._root, self._where).regions(pid)
        return known

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

    def _process(self, process: Process, before: RegionMap | None, pack: PackSeries) -> None:
        base = ("proc", str(process.pid))
        if before != process.regions or self._tree.get((*base, "map")) is None:  # a draft writes no map
            self._map(process.pid, process.regions, pack)
        self._regions[process.pid] = process.regions
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
