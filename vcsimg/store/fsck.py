"""Is every capture whole? Each is read as a reader would, from its own tree; what did not change since its parent is known."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pygit2

from vcsimg.errors import ImageError, KeyMissing, StoreError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.snapshot import CaptureFacts, Process, Snapshot
from vcsimg.image.units import PIECE_SHIFT
from vcsimg.image.versions import contents, reader
from vcsimg.store import chain as chains
from vcsimg.store import gitcommand, remotes
from vcsimg.store.differing import differing
from vcsimg.store.layout import file_path, is_key
from vcsimg.store.load import Loader
from vcsimg.store.objects import Entry, Objects, Oid
from vcsimg.store.rewrite import oldest_first
from vcsimg.store.source import CHUNK, Held, StoredFiles, StoredPieces, Trees
from vcsimg.store.stepping import apply

_HELD = 32
_TRIES = 5
_CAPTURE = re.compile(r"capture [0-9a-f]{12} ")
Progress = Callable[[int, int], None]
"""progress(captures checked, captures in all)."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `capture`: the first in which it shows, None when it belongs to none."""

    capture: str | None
    message: str


@dataclass
class Report:
    """What a check found. `damaged`: captures that cannot be rebuilt wholly, among `checked`.

    `sealed`: captures that only their objects were checked of, since they are encrypted and the key is not here. `absent`: captures
    of a light clone whose contents are elsewhere.
    """

    findings: list[Finding] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    checked: int = 0
    sealed: int = 0
    absent: int = 0

    @property
    def clean(self) -> bool:
        return not self.findings


Bad = dict[tuple[int, int], str]
"""What is wrong with the pieces of a capture, by process and piece."""


class Checker:
    """Checks the captures of a repository, oldest first."""

    def __init__(self, repo: pygit2.Repository, path: Path, *, light: bool = False, wrong: Sequence[str] = ()) -> None:
        """`wrong`: what is known to be already."""
        self._light = light
        self._repo = repo
        self._path = path
        self._objects = Objects(repo, strict=True)
        self._held: OrderedDict[tuple[int, int], Held] = OrderedDict()
        self._files: dict[Oid, str | None] = {}
        self._bad: dict[str, Bad] = {}
        self._said: set[str] = set()
        self.report = Report([Finding(None, message) for message in wrong])

    def run(self, progress: Progress | None = None) -> Report:
        """Check everything that branches and tags lead to, then have git check its objects. Raises StoreError."""
        commits = self._commits()
        for place, commit in enumerate(commits):
            self._capture(commit)
            self.report.checked = place + 1 - self.report.absent
            if progress is not None:
                progress(place + 1, len(commits))
        self._git()
        return self.report

    def _commits(self) -> list[pygit2.Commit]:
        try:
            return list(oldest_first(self._repo))
        except (pygit2.GitError, KeyError) as error:
            self._say(None, f"the history cannot be walked: {error}")
            return []

    def _say(self, capture: str | None, message: str) -> None:
        if capture is not None:
            self.report.damaged.add(capture)
        key = _CAPTURE.sub("", message)
        if key not in self._said:
            self._said.add(key)
            self.report.findings.append(Finding(capture, message))

    def _capture(self, commit: pygit2.Commit) -> None:
        name = str(commit.id)
        root = bytes(commit.tree_id.raw)
        where = f"capture {name[:12]}"
        parent = next((one for one in commit.parent_ids if str(one) in self._bad), None)
        bad: Bad = dict(self._bad[str(parent)]) if parent is not None else {}
        try:
            if self._light and next(remotes.missing(self._repo, self._objects, root, where), None) is not None:
                self.report.absent += 1
                return
            snapshot = Loader(self._objects, root, where).snapshot(CaptureFacts("", 0.0))
            before = bytes(self._repo[parent].peel(pygit2.Commit).tree_id.raw) if parent is not None else None
            pids = {process.pid for process in snapshot.processes}
            bad = {key: message for key, message in bad.items() if key[0] in pids}
            for process in snapshot.processes:
                self._memory(process, root, before, bad, where)
            self._mapped(Trees(self._objects, root, where), where, name)
            self._contents(snapshot, where, name)
        except KeyMissing:
            self.report.sealed += 1
        except (ImageError, StoreError) as error:
            self._say(name, str(error))
            return  # its children are checked from the start, not relative to it
        for message in bad.values():
            self._say(name, message)
        self._bad[name] = bad

    def _memory(self, process: Process, root: Oid, before: Oid | None, bad: Bad, where: str) -> None:
        memory = process.memory
        assert isinstance(memory, ImageMemory)
        stored = memory.pieces
        assert isinstance(stored, StoredPieces)
        numbers = stored.numbers() if before is None else differing(self._objects, before, root, process.pid, where)
        for number in numbers:
            key = (process.pid, number)
            bad.pop(key, None)
            try:
                self._piece(stored, key)
            except ImageError as error:
                self._held.pop(key, None)
                bad[key] = str(error)

    def _piece(self, stored: StoredPieces, key: tuple[int, int]) -> None:
        number = key[1]
        links = stored.links(number)
        held = self._held.pop(key, None)
        known = len(held.links) if held is not None else 0
        if held is not None and links[:known] == held.links and len(links) > known and not is_key(links[known].kind):
            where = stored.where(number)
            for link in links[known:]:
                delta = chains.read_delta(self._objects, link, number << PIECE_SHIFT, where)
                held.state = apply(held.piece, held.state, delta, where, forward=True)
            held.links = links
        else:
            held = stored.held(number)
        if held is None or not held.links:
            return
        self._held[key] = held
        if len(self._held) > _HELD:
            self._held.popitem(last=False)

    def _mapped(self, trees: Trees, where: str, name: str) -> None:
        top = trees.find(("files",))
        if top is None:
            return
        for fan in trees.list(top.oid).values():
            for sha256, entry in trees.list(fan.oid).items() if fan.is_tree else ():
                if entry.oid not in self._files:
                    self._files[entry.oid] = self._file(trees, sha256, entry, where)
                message = self._files[entry.oid]
                if message is not None:
                    self._say(name, message)

    def _contents(self, snapshot: Snapshot, where: str, name: str) -> None:
        """Files of which a capture says that it holds the content."""
        for process in snapshot.processes:
            for content in contents(process):
                if reader(process, content) is None and content.sha256 is not None:
                    self._say(name, f"{where} process {process.pid} content of {content.path}: it is missing")

    def _file(self, trees: Trees, sha256: str, entry: Entry, where: str) -> str | None:
        """What is wrong with the content of a file."""
        try:
            files = StoredFiles(self._objects, trees, where)
            size = files.size(sha256)
            if size is None or trees.find(file_path(sha256)) != entry or set(_names(trees, entry)) != files.names(sha256):
                return f"{where} files/{sha256}: it is not complete"
            hasher = hashlib.sha256()
            for offset in range(0, size, CHUNK):
                hasher.update(files.read(sha256, offset, CHUNK))
            if hasher.hexdigest() != sha256:
                return f"{where} files/{sha256}: its content has another hash"
        except ImageError as error:
            return str(error)
        return None

    def _git(self) -> None:
        for _ in range(_TRIES):
            packs = set((self._path / "objects" / "pack").glob("*.pack"))
            done = gitcommand.attempt(self._path, "fsck", "--full", "--strict", "--no-dangling", "--no-progress")
            # Where no copy could be made that stands still, a recorder may take packs away from under git, which then finds objects missing.
            if not done.returncode or packs == set((self._path / "objects" / "pack").glob("*.pack")):
                break
        if done.returncode:
            for line in (done.stdout + done.stderr).splitlines():
                if line.strip():
                    self._say(None, f"git fsck: {line.replace(f'{self._path}/', '')}")


def _names(trees: Trees, entry: Entry) -> Iterator[tuple[str, ...]]:
    """The paths of all files below a directory."""
    for name, child in trees.list(entry.oid).items() if entry.is_tree else ():
        if child.is_tree:
            yield from ((name, *names) for names in _names(trees, child))
        else:
            yield (name,)
