"""A repository of captures: the one face of this package. Plain git, bare, written by one pack a capture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pygit2

from vcsimg.errors import RepositoryBusy, StoreError, UnknownRevision
from vcsimg.image.pages import PieceSource
from vcsimg.image.snapshot import Snapshot
from vcsimg.store import cipher, consolidate, leftovers, message, names, refs, remotes, setup
from vcsimg.store.failures import translated
from vcsimg.store.fsck import Checker, Progress, Report
from vcsimg.store.helper import Helper
from vcsimg.store.identity import identity
from vcsimg.store.layout import file_path
from vcsimg.store.load import Loader
from vcsimg.store.locks import Taken, locked
from vcsimg.store.objects import BLOB, COMMIT, Entry, Objects, Oid, format_commit
from vcsimg.store.pack import PackWriter
from vcsimg.store.prune import Pruned, chosen, prune
from vcsimg.store.refs import Branch
from vcsimg.store.salvage import salvage
from vcsimg.store.source import StoredPieces, differing
from vcsimg.store.walk import newest_first
from vcsimg.store.walker import HeldPieces
from vcsimg.store.writer import Writer

Sync = Literal["capture", "none"]
_TIPS_SEARCHED = 64
_VANISHED = 32
_AT_CLOSE = 64 << 20


@dataclass(frozen=True)
class Capture:
    """One commit: `time` in seconds since the epoch; `subject` and `body` of its message without the trailers."""

    id: str
    parents: tuple[str, ...]
    time: float
    subject: str
    body: str
    trailers: dict[str, str]
    branch: str | None = None


class Repository:
    """Captures in a git repository.

    Not safe for use by several threads at once; several processes may use one repository, and read while others write.
    `sync`: "capture" (a capture is on the disk when `commit` returns) or "none" (the kernel writes it when it likes).
    """

    def __init__(self, path: Path, *, sync: Sync = "capture") -> None:
        self.path = path
        self._sync = sync == "capture"
        self._git = setup.open_git(path)
        self._objects = Objects(self._git)
        self._promisor = remotes.promisor(self._git)
        self._complete: set[str] = set()
        self._writers: dict[str, Writer] = {}
        self._helper: Helper | None = None
        self._owner: leftovers.Owner | None = None
        self._commits = 0
        self._packs: set[str] = set()
        self.bytes_written = 0
        """Bytes of the packs of captures that were committed through this object."""

    @classmethod
    def init(
        cls, path: str | Path, *, sync: Sync = "capture", key_file: Path | None = None, key_command: str | None = None
    ) -> Repository:
        """Make a repository at `path` (or open the one that is there).

        With a key, everything stored in it will be encrypted: the key is in `key_file`, which is made if it is not there, or is
        what `key_command` prints. Raises StoreError.
        """
        path = Path(path).absolute()
        with translated(path):
            setup.make(path)
            if key_file is not None or key_command is not None:
                repo = setup.open_git(path)
                if any(refs.branches(repo)) and not cipher.required(repo):
                    raise StoreError(str(path), "it has captures that are not encrypted", remedy="Choose another path.")
                cipher.configure(repo, key_file=key_file, key_command=key_command)
        return cls(path, sync=sync)

    @classmethod
    def open(cls, path: str | Path, *, sync: Sync = "capture") -> Repository:
        """The repository at `path`, or in the .vcsimg or .git below it. Raises RepositoryMissing, StoreError, NewerFormat."""
        return cls.discover(Path(path), path, sync=sync)

    @classmethod
    def discover(cls, start: str | Path, explicit: str | Path | None = None, *, sync: Sync = "capture") -> Repository:
        """The repository at `explicit`, else the nearest one from the folder `start` upward. Raises RepositoryMissing."""
        start = Path(start)
        with translated(Path(explicit) if explicit is not None else start):
            found = setup.find(start, Path(explicit) if explicit is not None else None)
            return cls(found.absolute(), sync=sync)

    @classmethod
    def clone(
        cls, url: str, path: str | Path, *, light: bool = False, depth: int | None = None, progress: bool = False
    ) -> Repository:
        """Copy a repository from any place that git can fetch from. `depth`: only so many captures of each branch.

        `light`: no contents yet; those of a capture are fetched when it is loaded. Raises StoreError.
        """
        path = Path(path).absolute()
        with translated(path):
            remotes.clone(url, path, light=light, depth=depth, progress=progress)
        return cls(path)

    def close(self) -> None:
        """End its threads and its helper, and leave few packs behind. It can be used again."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        if self._commits:
            self._commits = 0
            self.consolidate(_AT_CLOSE)
        self._owner = None

    def consolidate(self, most: int | None = None) -> int:
        """Make few packs of many, as far as it is due, but none of more than `most` bytes. Returns how many were made.

        Raises StoreError.
        """
        with translated(self.path):
            made = consolidate.consolidate(self.path, sync=self._sync, most=most)
            if made:
                self._reopen()
        return made

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    @contextmanager
    def lock(self, branch: str) -> Iterator[None]:
        """Be the only recorder of a branch, as long as the block lasts. Raises RepositoryBusy with the owner's pid.

        The kernel drops the lock when its holder ends, so none is ever stale.
        """
        with translated(self.path):
            refs.check_name(self.path, branch)
            folder = setup.work_directory(self.path) / "locks"
            folder.mkdir(mode=0o700, exist_ok=True)
            manager = locked(folder / f"{branch.replace('/', '%')}.lock")
            try:
                manager.__enter__()
            except Taken as taken:
                raise RepositoryBusy(str(self.path), branch, taken.owner) from None
        try:
            yield
        finally:
            manager.__exit__(None, None, None)

    def commit(self, snapshot: Snapshot, *, branch: str, parents: Sequence[str], message: str = "") -> str:
        """Store a capture and move `branch` to it. Returns its commit id; it is durable then (see `sync`).

        `parents[0]`, if any, must be the capture that `snapshot.base` names, and the tip of the branch if that exists already.
        An empty message is replaced by one that says what changed. `snapshot.facts.pages_changed` is filled in.
        Reads `changes` of every process through; the arrays in them belong to the store from then on.
        Raises StoreError (DiskFull, RepositoryReadOnly, RepositoryBusy), DamagedImage. Then nothing has changed.
        """
        if snapshot.base is not None and (not parents or snapshot.base != parents[0]):
            raise ValueError("a snapshot's base is its first parent")
        with translated(self.path):
            refs.check_name(self.path, branch)
            old = refs.tip(self._git, branch)
            if old is not None and (not parents or parents[0] != old):
                raise RepositoryBusy(str(self.path), branch, None)
            work = setup.work_directory(self.path)
            owner = leftovers.owner(work)
            if owner is not self._owner:
                self._owner = owner
                leftovers.remove(work, self._pack_directory)
            self._keep_packs_few()
            writer = self._writer(branch, parents[0] if parents else None)
            pack = PackWriter(self._pack_directory, work, sync=self._sync)
            try:
                commit = self._write(writer, pack, snapshot, parents, message)
                keep = pack.finish()
                refs.move(self._git, self.path, branch, old, commit, sync=self._sync)
            except BaseException:
                if refs.tip(self._git, branch) == old:
                    pack.abandon()
                writer.close()
                self._writers.pop(branch, None)
                raise
            if keep is not None:
                keep.unlink(missing_ok=True)
            writer.tip = commit
            self._commits += 1
            self.bytes_written += pack.size if keep is not None else 0
        return commit

    @property
    def _pack_directory(self) -> Path:
        return self.path / "objects" / "pack"

    def _keep_packs_few(self) -> None:
        """See to it that packs are consolidated: by the helper while a recording goes on, and here if it cannot keep up."""
        packs = consolidate.candidates(self._pack_directory)
        if consolidate.plan(packs):
            if len(packs) >= consolidate.TOO_MANY:
                consolidate.consolidate_small(self.path, sync=self._sync, wait=True)
                packs = consolidate.candidates(self._pack_directory)
                if len(packs) >= consolidate.TOO_MANY:
                    consolidate.consolidate(self.path, sync=self._sync)
                    packs = consolidate.candidates(self._pack_directory)
            else:
                if self._helper is None and self._commits >= consolidate.FAN:
                    self._helper = Helper(self.path, sync=self._sync)
                if self._helper is not None:
                    self._helper.poke()
        names = {pack.path.name for pack in packs}
        if len(self._packs - names) > _VANISHED:
            self._reopen()
        self._packs |= names

    def _reopen(self) -> None:
        self._git = setup.open_git(self.path)
        self._objects.use(self._git)
        self._promisor = remotes.promisor(self._git)
        self._packs = {pack.path.name for pack in consolidate.candidates(self._pack_directory)}

    def _write(self, writer: Writer, pack: PackWriter, snapshot: Snapshot, parents: Sequence[str], text: str) -> str:
        tree, counts = writer.write(snapshot, pack, self._find_file)
        facts = snapshot.facts
        if facts is not None:
            facts.pages_changed = counts.pages
        subject = text if text.strip() else message.made_subject(snapshot, counts.pages, len(counts.regions))
        who = identity(self._git, facts.time if facts is not None else time.time())
        data = format_commit(tree, parents, who, who, message.compose(subject, snapshot))
        return pack.add(COMMIT, data).hex()

    def _writer(self, branch: str, parent: str | None) -> Writer:
        """The writer that knows what `parent` looked like: the one that wrote it, or one that reads it."""
        writer = self._writers.get(branch)
        if writer is None or writer.tip != parent:
            if writer is not None:
                writer.close()
            root = self._root(parent) if parent is not None else None
            writer = self._writers[branch] = Writer(self._objects, parent, root)
        return writer

    def _find_file(self, sha256: str) -> Oid | None:
        """The directory of a mapped file at the tip of some branch: there it is sure to stay."""
        for branch in list(refs.branches(self._git))[-_TIPS_SEARCHED:]:
            entry = self._objects.find(self._root(branch.tip), "/".join(file_path(sha256)), f"capture {branch.tip[:12]}")
            if entry is not None:
                return entry.oid
        return None

    # Other copies

    def fetch(self, remote: str = remotes.ORIGIN, *, progress: bool = False) -> None:
        """Get new captures from a remote. Raises StoreError."""
        remotes.fetch(self.path, remote, progress=progress)
        self._reopen()

    def push(
        self, remote: str = remotes.ORIGIN, branches: Sequence[str] = (), *, confirmed: bool = False, progress: bool = False
    ) -> None:
        """Send branches (none named: all) to a remote, a name or a URL. The first push to a place must be `confirmed`, since
        memory holds secrets. Raises StoreError."""
        remotes.push(self.path, remote, branches, confirmed=confirmed, progress=progress)

    def bundle(self, file: str | Path, revisions: Sequence[str] = ()) -> None:
        """Write captures with their history (none named: all) into one file, for `clone` and `fetch`. Raises StoreError."""
        remotes.bundle(self.path, Path(file), revisions)

    def complete(self, rev: str) -> int:
        """Fetch what a light clone lacks of a capture; `load` does so too. Returns how many objects. Raises StoreError."""
        if self._promisor is None or rev in self._complete:
            return 0
        with translated(self.path):
            root = self._root(rev)
            fetched = remotes.complete(self._git, self._objects, self.path, self._promisor, root, f"capture {rev[:12]}")
            if fetched:
                self._reopen()
            self._complete.add(rev)
        return fetched

    # Upkeep

    def fsck(self, progress: Progress | None = None) -> Report:
        """Check every capture, page by page, and git's own objects. Raises StoreError."""
        with translated(self.path):
            self._reopen()
            return Checker(self._git, self.path).run(progress)

    def salvage(self, target: str | Path, report: Report) -> int:
        """Copy every capture that `report` has nothing against into a new repository. Returns how many. Raises StoreError."""
        with translated(Path(target)):
            made = Repository.init(target)
            return salvage(self.path, self._git, made.path, report.damaged)

    def prune(self, *, keep_every: float | None = None, keep_last: int | None = None, keep_tagged: bool = True) -> Pruned:
        """Thin the history of all branches: keep the tip of each, its newest `keep_last`, one every `keep_every` seconds, tagged
        ones, and those that several others come from. Ids of captures after a gap change; their content does not.

        Raises RepositoryBusy when one of the branches is being recorded, StoreError.
        """
        if keep_every is None and keep_last is None:
            raise ValueError("nothing says what to keep")
        with ExitStack() as locks, translated(self.path):
            for branch in self.branches():
                locks.enter_context(self.lock(branch.name))
            self._reopen()
            keep = chosen(self._git, every=keep_every, last=keep_last, tagged=keep_tagged)
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()
            try:
                return prune(self._git, self._objects, self.path, keep, sync=self._sync)
            finally:
                self._reopen()

    # Reading

    def resolve(self, rev: str) -> str:
        """The commit id that a revision, as git understands them, means. Raises UnknownRevision."""
        return str(self._commit(rev).id)

    def _commit(self, rev: str) -> pygit2.Commit:
        try:
            return self._git.revparse_single(rev).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError):
            raise UnknownRevision(str(self.path), rev) from None

    def _root(self, rev: str) -> Oid:
        return bytes(self._commit(rev).tree_id.raw)

    def load(self, rev: str) -> Snapshot:
        """The image of a capture, its memory read when asked for.

        Raises UnknownRevision, DamagedImage, HostileImage, NewerFormat.
        """
        return self._load(rev, None)

    def _load(self, rev: str, source: Callable[[int, StoredPieces], PieceSource] | None) -> Snapshot:
        commit = self._commit(rev)
        self.complete(str(commit.id))
        with translated(self.path):
            _, _, trailers = message.parse(commit.message)
            loader = Loader(self._objects, bytes(commit.tree_id.raw), f"capture {str(commit.id)[:12]}")
            return loader.snapshot(message.facts_of(trailers, float(commit.commit_time)), source)

    def capture(self, rev: str) -> Capture:
        """What the commit says of a capture. Raises UnknownRevision."""
        return _capture(self._commit(rev))

    def log(self, rev: str | None = None, limit: int | None = None, all: bool = False) -> Iterator[Capture]:
        """Captures, newest first: those that `rev` (default: HEAD) comes from, or those of all branches.

        Raises UnknownRevision. An empty repository has none.
        """
        tips = {branch.tip: branch.name for branch in reversed(list(refs.branches(self._git)))}
        if rev is None and not all and self._git.head_is_unborn:
            return
        starts = list(tips) if all else [self.resolve(rev if rev is not None else "HEAD")]
        for count, commit in enumerate(newest_first(self._git, starts)):
            if limit is not None and count >= limit:
                return
            yield _capture(commit, tips.get(str(commit.id)))

    def branches(self) -> list[Branch]:
        """All branches, by name."""
        with translated(self.path):
            return list(refs.branches(self._git))

    def tip(self, branch: str) -> str | None:
        """The newest capture of a branch; None when there is no such branch."""
        return refs.tip(self._git, branch)

    def start_branch(self, branch: str, commit: str) -> None:
        """A new branch at a capture: of a process that was restored from it. Raises RepositoryBusy when the branch exists, StoreError."""
        with translated(self.path):
            refs.check_name(self.path, branch)
            refs.move(self._git, self.path, branch, None, commit, sync=self._sync)

    def branch_of(self, pid: int, start_ticks: int, boot_id: str) -> str | None:
        """The branch on which this very process (not another with its pid) was captured last; None if there is none."""
        found: tuple[int, str] | None = None
        for branch in refs.branches(self._git):
            if not names.may_be_of(branch.name, pid):
                continue
            commit = self._commit(branch.tip)
            _, _, trailers = message.parse(commit.message)
            same = (trailers.get("Process"), trailers.get("Process-Start"), trailers.get("Boot-Id"))
            if same == (str(pid), str(start_ticks), boot_id) and (found is None or commit.commit_time > found[0]):
                found = (commit.commit_time, branch.name)
        return found[1] if found else None

    def show(self, rev: str, path: str) -> bytes:
        """A file of a capture's tree; a directory gives the names in it, one a line. Raises UnknownRevision, StoreError."""
        commit = self._commit(rev)
        where = f"capture {str(commit.id)[:12]}"
        root = bytes(commit.tree_id.raw)
        clean = path.strip("/")
        entry = self._objects.find(root, clean, where) if clean else Entry(True, root)
        if entry is None:
            raise StoreError(str(self.path), f"{where} has no {path!r}", remedy=f"`vcsimg show {rev}:` lists what it has.")
        if entry.is_tree:
            entries = self._objects.tree(entry.oid, where)
            return "".join(f"{name}{'/' * child.is_tree}\n" for name, child in entries.items()).encode()
        return self._objects.read(entry.oid, BLOB, where)

    def changed_pieces(self, a: str, b: str, pid: int) -> Iterator[int]:
        """Numbers of the pieces of a process whose chains differ between two captures, ascending; reads trees only.

        Every piece that differs is among them; one that is, if its chain was re-based, may still hold the same bytes.
        """
        yield from sorted(differing(self._objects, self._root(a), self._root(b), pid, f"capture {a[:12]}"))

    def walker(self, rev: str) -> Walker:
        """An image in hand that steps from capture to capture, beginning at `rev`."""
        return Walker(self, rev)


class Walker:
    """The image of a capture, kept in memory as far as it was read, and moved to others by the deltas between them.

    `snapshot` is the capture where it stands. Its memory changes with every `move`: what was read before stays what it was,
    but pieces taken from it change in place.
    """

    def __init__(self, repo: Repository, rev: str) -> None:
        self._repo = repo
        self._pieces: dict[int, HeldPieces] = {}
        self.capture = repo.resolve(rev)
        self.snapshot = self._load(self.capture, None)
        self.stepped = 0
        """Pieces that the last move reached by deltas."""
        self.rebuilt = 0
        """Pieces in hand that it let go, since no delta led there."""

    def move(self, rev: str) -> Snapshot:
        """Go to another capture: one delta a changed piece to a neighbour, a few to others near by.

        Raises UnknownRevision, DamagedImage, HostileImage.
        """
        target = self._repo.resolve(rev)
        self.stepped = self.rebuilt = 0
        before, self.capture = self.capture, target
        try:
            self.snapshot = self._load(target, before)
        except BaseException:
            self._pieces.clear()
            raise
        return self.snapshot

    def _load(self, target: str, before: str | None) -> Snapshot:
        held: dict[int, HeldPieces] = {}

        def source(pid: int, stored: StoredPieces) -> HeldPieces:
            pieces = self._pieces.get(pid)
            if pieces is None or before is None:
                pieces = HeldPieces(self._repo._objects, stored)
            else:
                stepped, rebuilt = pieces.move(stored, self._repo.changed_pieces(before, target, pid))
                self.stepped += stepped
                self.rebuilt += rebuilt
            held[pid] = pieces
            return pieces

        snapshot = self._repo._load(target, source)
        self._pieces = held
        return snapshot


def _capture(commit: pygit2.Commit, branch: str | None = None) -> Capture:
    subject, body, trailers = message.parse(commit.message)
    parents = tuple(str(parent) for parent in commit.parent_ids)
    return Capture(str(commit.id), parents, float(commit.commit_time), subject, body, trailers, branch)
