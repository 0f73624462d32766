"""A repository of captures: the one face of this package. Plain git, bare, written by one pack a capture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vcsimg.errors import KeyMissing, RepositoryBusy, StoreError
from vcsimg.store import captures, cipher, leftovers, message, names, refs, remotes, setup
from vcsimg.store.captures import Capture, capture_of
from vcsimg.store.failures import translated
from vcsimg.store.locks import Taken, allow_descriptors, locked
from vcsimg.store.objects import BLOB, Entry
from vcsimg.store.opened import Opened
from vcsimg.store.refs import Branch
from vcsimg.store.walk import newest_first

# What only some calls need is imported by them: numpy and its like take longer than `vcsimg log` does.
if TYPE_CHECKING:
    import pygit2

    from vcsimg.image.pages import PieceSource
    from vcsimg.image.snapshot import Snapshot
    from vcsimg.store.committer import Committer, Draft
    from vcsimg.store.fsck import Progress, Report
    from vcsimg.store.gc import Collected
    from vcsimg.store.gitcommand import Progress as Transfer
    from vcsimg.store.prune import Pruned
    from vcsimg.store.remotes import Fetched
    from vcsimg.store.source import StoredPieces
    from vcsimg.store.walker import Walker

Sync = Literal["capture", "none"]
_AT_CLOSE = 64 << 20


def _check_key(repo: pygit2.Repository, path: Path) -> None:
    """The key must open what is stored already: with another, nothing could be read or added. Raises StoreError."""
    newest = refs.newest(repo)
    key = cipher.find(repo)
    if newest is None or key is None:
        return
    try:
        cipher.unsealed(setup.format_of(repo[newest.tip]), key, str(path), sealed_only=False)
    except KeyMissing:
        raise StoreError(
            str(path), "its captures are encrypted with another key", remedy="Name the file that has their key."
        ) from None
    except KeyError:
        return  # a light clone, whose contents are not here


class Repository:
    """Captures in a git repository.

    Not safe for use by several threads at once; several processes may use one repository, and read while others write.
    `sync`: "capture" (a capture is on the disk when `commit` returns) or "none" (the kernel writes it when it likes).
    """

    def __init__(self, path: Path, *, sync: Sync = "capture") -> None:
        self.path = path
        self._sync = sync == "capture"
        self._opened = Opened(path)
        self._complete: set[str] = set()

    @cached_property
    def _committer(self) -> Committer:
        from vcsimg.store.committer import Committer

        return Committer(self._opened, sync=self._sync)

    @property
    def bytes_written(self) -> int:
        """Bytes of the packs of captures that were committed through this object."""
        return self._committer.bytes_written

    @classmethod
    def init(
        cls, path: str | Path, *, sync: Sync = "capture", key_file: Path | None = None, key_command: str | None = None
    ) -> Repository:
        """Make a repository at `path` (or open the one that is there).

        With a key, everything stored in it will be encrypted: the key is in `key_file`, which is made if it is not there, or is
        what `key_command` prints. Raises StoreError.
        """
        path = Path(path).absolute()
        existed = path.exists()
        with translated(path):
            setup.make(path)
            if key_file is not None or key_command is not None:
                repo = setup.open_git(path)
                if any(refs.branches(repo)) and not cipher.required(repo):
                    raise StoreError(str(path), "it has captures that are not encrypted", remedy="Choose another path.")
                if key_file is not None and not key_file.exists() and any(refs.branches(repo)):
                    raise StoreError(
                        str(path),
                        f"it has captures, and their key is not in {key_file}",
                        remedy="Name the file that has their key.",
                    )
                before = cipher.places(repo)
                try:
                    cipher.configure(repo, key_file=key_file, key_command=key_command)
                    _check_key(repo, path)
                except StoreError:
                    cipher.note_places(repo, *before)
                    if not existed:
                        shutil.rmtree(path, ignore_errors=True)
                    raise
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
        cls,
        url: str,
        path: str | Path,
        *,
        light: bool = False,
        depth: int | None = None,
        key_file: Path | None = None,
        key_command: str | None = None,
        progress: Transfer | None = None,
    ) -> Repository:
        """Copy a repository from any place that git can fetch from. `depth`: only so many captures of each branch.

        `light`: no contents yet; those of a capture are fetched when it is loaded. `key_file`, `key_command`: where the key is, for
        an encrypted one; it can be said later too. Raises StoreError (KeyMissing): then there is no copy.
        """
        path = Path(path).absolute()
        with translated(path):
            keys = (key_file, key_command) if key_file is not None or key_command is not None else None
            remotes.clone(url, path, light=light, depth=depth, keys=keys, progress=progress)
        return cls(path)

    def close(self) -> None:
        """End its threads and its helper, and leave few packs behind. It can be used again."""
        if "_committer" in self.__dict__:  # else nothing was written
            commits = self._committer.commits
            self._committer.close()
            if commits:
                self.consolidate(_AT_CLOSE)

    def consolidate(self, most: int | None = None) -> int:
        """Make few packs of many, as far as it is due, but none of more than `most` bytes. Returns how many were made.

        Raises StoreError.
        """
        from vcsimg.store import consolidate

        with translated(self.path):
            made = consolidate.consolidate(self.path, sync=self._sync, most=most)
            if made:
                self._opened.reopen()
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

    def draft(self, branch: str) -> Draft:
        """Begin the first capture of a branch before the process is stopped for it, as a context manager: memory that is given to add(), as
        the process has it while it runs, goes to disk, and the capture names only what has changed since (`draft` of commit()). Nothing of it
        is on the branch, or stays, unless it is committed."""
        return self._committer.draft(branch)

    def commit(
        self, snapshot: Snapshot, *, branch: str, parents: Sequence[str], message: str = "", draft: Draft | None = None
    ) -> str:
        """Store a capture and move `branch` to it. Returns its commit id; it is durable then (see `sync`).

        `parents[0]`, if any, must be the capture that `snapshot.base` names, and the tip of the branch if that exists already.
        An empty message is replaced by one that says what changed. `snapshot.facts.pages_changed` is filled in.
        Reads `changes` of every process through; the arrays in them must not change until it has returned.
        Raises StoreError (DiskFull, RepositoryReadOnly, RepositoryBusy), DamagedImage. Then nothing has changed.
        """
        if snapshot.base is not None and (not parents or snapshot.base != parents[0]):
            raise ValueError("a snapshot's base is its first parent")
        with translated(self.path):
            return self._committer.commit(snapshot, branch, parents, message, draft)

    # Other copies

    def fetch(self, remote: str = remotes.ORIGIN, *, progress: Transfer | None = None) -> list[Fetched]:
        """Get new captures from a remote. Returns the branches that moved. Raises StoreError."""
        with translated(self.path):
            leftovers.remove(self.path)
            fetched = remotes.fetch(self.path, remote, progress=progress)
            self._opened.reopen()
        return fetched

    def push_target(self, remote: str = remotes.ORIGIN) -> tuple[str, bool]:
        """The URL that a push to a remote would go to, and whether captures were pushed there before."""
        url = remotes.url_of(self.path, remote)
        return url, remotes.is_known(self.path, url)

    def push(
        self,
        remote: str = remotes.ORIGIN,
        branches: Sequence[str] = (),
        *,
        confirmed: bool = False,
        progress: Transfer | None = None,
    ) -> None:
        """Send branches (none named: all) to a remote, a name or a URL. The first push to a place must be `confirmed`, since
        memory holds secrets. Raises StoreError."""
        remotes.push(self.path, remote, branches, confirmed=confirmed, progress=progress)

    def bundle(self, file: str | Path, revisions: Sequence[str] = ()) -> None:
        """Write captures with their history (none named: all) into one file, for `clone` and `fetch`. Raises StoreError."""
        remotes.bundle(self.path, Path(file), revisions)

    def complete(self, rev: str, *, progress: Transfer | None = None) -> int:
        """Fetch what a light clone lacks of a capture; `load` does so too. Returns how many objects. Raises StoreError."""
        promisor = self._opened.promisor
        if promisor is None or rev in self._complete:
            return 0
        with translated(self.path):
            root = self._opened.root(rev)
            missing = list(dict.fromkeys(remotes.missing(self._opened.git, self._opened.objects, root, f"capture {rev[:12]}")))
            if missing:
                remotes.fetch_objects(self.path, promisor, missing, progress)
                self._opened.reopen()
            self._complete.add(rev)
        return len(missing)

    # Upkeep

    def gc(self) -> Collected:
        """Pack everything anew, and drop what no branch or tag leads to. Captures may be made meanwhile. Raises StoreError."""
        from vcsimg.store import gc

        with translated(self.path):
            collected = gc.collect(self.path)
            self._opened.reopen()
        return collected

    def fsck(self, progress: Progress | None = None) -> Report:
        """Check every capture, page by page, and git's own objects, as they are now; others may write meanwhile. Raises StoreError."""
        from vcsimg.store.fsck import Checker
        from vcsimg.store.still import mended

        with translated(self.path), mended(self.path) as (folder, wrong):
            opened = Opened(folder)
            return Checker(opened.git, folder, light=opened.promisor is not None, wrong=wrong).run(progress)

    def salvage(self, target: str | Path, report: Report) -> int:
        """Copy every capture that `report` has nothing against into a new repository. Returns how many. Raises StoreError."""
        from vcsimg.store.salvage import salvage
        from vcsimg.store.still import mended

        target = Path(target).absolute()
        with translated(target), mended(self.path) as (folder, _), setup.new(target):
            source, made = Opened(folder).git, setup.open_git(target)
            if cipher.required(source):
                cipher.note_places(made, *cipher.places(source))
                cipher.adopt(made)
            return salvage(folder, source, target, report.damaged)

    def prune(
        self, *, keep_every: float | None = None, keep_last: int | None = None, keep_tagged: bool = True, dry_run: bool = False
    ) -> Pruned:
        """Thin the history of all branches: keep the tip of each, its newest `keep_last`, one every `keep_every` seconds, tagged
        ones, and those that several others come from. Ids of captures after a gap change; their content does not.

        `dry_run`: only count. Raises RepositoryBusy when one of the branches is being recorded, StoreError.
        """
        from vcsimg.store.prune import chosen, prune, would_prune

        if keep_every is None and keep_last is None:
            raise ValueError("nothing says what to keep")
        with ExitStack() as locks, translated(self.path):
            branches = list(self.branches())
            allow_descriptors(len(branches))
            for branch in branches:
                locks.enter_context(self.lock(branch.name))
            leftovers.remove(self.path)
            self._opened.reopen()
            git = self._opened.git
            keep = chosen(git, every=keep_every, last=keep_last, tagged=keep_tagged)
            if dry_run:
                return would_prune(git, self.path, keep)
            self._committer.forget()
            try:
                return prune(git, self._opened.objects, self.path, keep, sync=self._sync)
            finally:
                self._opened.reopen()

    # Reading

    def resolve(self, rev: str) -> str:
        """The commit id that a revision, as git understands them, means. Raises UnknownRevision."""
        return str(self._opened.commit(rev).id)

    def load(self, rev: str) -> Snapshot:
        """The image of a capture, its memory read when asked for.

        Raises UnknownRevision, DamagedImage, HostileImage, NewerFormat.
        """
        return self._load(rev, None)

    def _load(self, rev: str, source: Callable[[int, StoredPieces], PieceSource] | None) -> Snapshot:
        from vcsimg.store.load import Loader

        commit = self._opened.commit(rev)
        self.complete(str(commit.id))
        with translated(self.path):
            _, _, trailers = message.parse(commit.message)
            loader = Loader(self._opened.objects, bytes(commit.tree_id.raw), f"capture {str(commit.id)[:12]}")
            return loader.snapshot(message.facts_of(trailers, float(commit.commit_time)), source)

    def capture(self, rev: str) -> Capture:
        """What the commit says of a capture. Raises UnknownRevision."""
        return capture_of(self._opened.commit(rev))

    def log(self, rev: str | None = None, limit: int | None = None, all: bool = False) -> Iterator[Capture]:
        """Captures, newest first: those that `rev` (default: HEAD) comes from, or those of all branches.

        Raises UnknownRevision. A repository without branches has none.
        """
        with translated(self.path):
            tips = {branch.tip: branch.name for branch in reversed(list(refs.branches(self._opened.git)))}
            if not tips:
                return
            starts = list(tips) if all else [self.resolve(rev if rev is not None else "HEAD")]
            for count, commit in enumerate(newest_first(self._opened.git, starts)):
                if limit is not None and count >= limit:
                    return
                yield capture_of(commit, tips.get(str(commit.id)))

    def branches(self) -> list[Branch]:
        """All branches, by name."""
        with translated(self.path):
            return list(refs.branches(self._opened.git))

    def tip(self, branch: str) -> str | None:
        """The newest capture of a branch; None when there is no such branch."""
        return refs.tip(self._opened.git, branch)

    def start_branch(self, branch: str, commit: str, pid: int, start_ticks: int, boot_id: str) -> str:
        """A new branch at a capture, for a process that is restored from it: `branch_of` finds it.

        HEAD stays where it is until there is a capture on the branch. Returns its name, which is `branch` unless that is taken. Raises
        RepositoryBusy when somebody else makes it meanwhile, StoreError.
        """
        with translated(self.path):
            refs.check_name(self.path, branch)
            leftovers.remove(self.path)
            name = self.free_branch(branch)
            refs.dedicate(self._opened.git, name, (pid, start_ticks, boot_id))
            refs.move(self._opened.git, self.path, name, None, commit, sync=self._sync, head=False)
        return name

    def free_branch(self, branch: str) -> str:
        """`branch`, or a name made of it when there is such a branch."""
        return names.free(branch, lambda name: self.tip(name) is not None)

    def branch_of(self, pid: int, start_ticks: int, boot_id: str) -> str | None:
        """The branch on which this very process (not another with its pid) was captured last; None if there is none."""
        return captures.branch_of(self._opened.git, pid, start_ticks, boot_id)

    def show(self, rev: str, path: str) -> bytes:
        """A file of a capture's tree; a directory gives the names in it, one a line. Raises UnknownRevision, StoreError."""
        commit = self._opened.commit(rev)
        where = f"capture {str(commit.id)[:12]}"
        root = bytes(commit.tree_id.raw)
        clean = path.strip("/")
        entry = self._opened.objects.find(root, clean, where) if clean else Entry(True, root)
        if entry is None:
            raise StoreError(str(self.path), f"{where} has no {path!r}", remedy=f"`vcsimg show {rev}:` lists what it has.")
        if entry.is_tree:
            entries = self._opened.objects.tree(entry.oid, where)
            return "".join(f"{name}{'/' * child.is_tree}\n" for name, child in entries.items()).encode()
        if self._opened.promisor is not None and remotes.lacks(self._opened.git, entry.oid):
            with translated(self.path):
                remotes.fetch_objects(self.path, self._opened.promisor, [entry.oid])
                self._opened.reopen()
        return self._opened.objects.read(entry.oid, BLOB, where)

    def changed_pieces(self, a: str, b: str, pid: int) -> Iterator[int]:
        """Numbers of the pieces of a process whose chains differ between two captures, ascending; reads trees only.

        Every piece that differs is among them; one that is, if its chain was re-based, may still hold the same bytes.
        """
        from vcsimg.store.differing import differing

        one, two = self._opened.root(a), self._opened.root(b)
        yield from sorted(differing(self._opened.objects, one, two, pid, f"capture {a[:12]}"))

    def memory_id(self, rev: str, pid: int, numbers: Sequence[int]) -> Hashable:
        """Equal for two captures only if the map, the mapped files and these pieces of the process are the same in both; None if
        the capture does not have the process. Reads trees only. Raises UnknownRevision, DamagedImage, HostileImage."""
        from vcsimg.store.differing import memory_id

        return memory_id(self._opened.objects, self._opened.root(rev), pid, numbers, f"capture {rev[:12]}")

    def walker(self, rev: str) -> Walker:
        """An image in hand that steps from capture to capture, beginning at `rev`."""
        from vcsimg.store.walker import Walker

        return Walker(self._opened, self._load, rev)
