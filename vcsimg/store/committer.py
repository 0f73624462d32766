"""Captures into the repository: one pack and one reference each, and packs kept few meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from vcsimg.errors import RepositoryBusy
from vcsimg.image.pages import PieceChange
from vcsimg.image.region import RegionMap
from vcsimg.image.snapshot import Snapshot
from vcsimg.store import consolidate, leftovers, message, refs, setup
from vcsimg.store.failures import translated
from vcsimg.store.helper import Helper
from vcsimg.store.identity import identity
from vcsimg.store.layout import file_path
from vcsimg.store.objects import COMMIT, Oid, format_commit
from vcsimg.store.opened import Opened
from vcsimg.store.packseries import PackSeries
from vcsimg.store.writer import Writer

_TIPS_SEARCHED = 64
_VANISHED = 32


class Draft:
    """The beginning of the first capture on a branch: memory that is stored while the process still runs, relative to which the capture is
    then made. A context manager: what was not taken over by Committer.commit() is taken away. `begin` gives a writer and packs; `drop` is
    called when they are of no use any more."""

    def __init__(self, path: Path, begin: Callable[[], tuple[Writer, PackSeries]], drop: Callable[[], None]) -> None:
        self._path = path
        self._begin = begin
        self._drop = drop
        self._begun: tuple[Writer, PackSeries] | None = None

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def add(self, pid: int, regions: RegionMap, changes: Iterable[PieceChange]) -> None:
        """Store memory of a process, once. Reads `changes` through; the arrays in them must not change until it has returned. Raises StoreError
        (DiskFull, RepositoryReadOnly), and what `changes` raises."""
        with translated(self._path):
            if self._begun is None:
                self._begun = self._begin()
            writer, pack = self._begun
            writer.draft(pid, regions, changes, pack)

    def take(self) -> tuple[Writer, PackSeries] | None:
        """What was begun, if anything: from now on the caller's to finish or abandon."""
        begun, self._begun = self._begun, None
        return begun

    def abandon(self) -> None:
        """Take away what was stored."""
        begun = self.take()
        if begun is not None:
            begun[1].abandon()
            self._drop()


class Committer:
    """Writes captures. It keeps a writer a branch, which knows what the last capture looked like."""

    def __init__(self, opened: Opened, *, sync: bool) -> None:
        self._opened = opened
        self._path = opened.path
        self._sync = sync
        self._writers: dict[str, Writer] = {}
        self._helper: Helper | None = None
        self._owner: leftovers.Owner | None = None
        self._packs: set[str] = set()
        self.commits = 0
        """Captures since it was made or closed."""
        self.bytes_written = 0
        """Bytes of the packs of all its captures."""

    def close(self) -> None:
        """End threads and helper. It can be used again."""
        self.forget()
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        self.commits = 0
        self._owner = None

    def forget(self) -> None:
        """What it remembers of captures goes: the history was changed by something else."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def draft(self, branch: str) -> Draft:
        """The beginning of a capture on a branch that does not exist yet. Raises StoreError."""
        refs.check_name(self._path, branch)
        return Draft(self._path, lambda: self._begin(branch, None), lambda: self._drop(branch))

    def commit(self, snapshot: Snapshot, branch: str, parents: Sequence[str], text: str, draft: Draft | None = None) -> str:
        """Store a capture and move the branch: see Repository.commit. Raises StoreError, DamagedImage, OSError."""
        refs.check_name(self._path, branch)
        old = refs.tip(self._opened.git, branch)
        if old is not None and (not parents or parents[0] != old):
            raise RepositoryBusy(str(self._path), branch, None)
        begun = draft.take() if draft is not None else None
        writer, pack = begun or self._begin(branch, parents[0] if parents else None)
        try:
            commit = self._write(writer, pack, snapshot, parents, text)
            keeps = pack.finish()
            refs.move(self._opened.git, self._path, branch, old, commit, sync=self._sync)
        except BaseException:
            if refs.tip(self._opened.git, branch) == old:
                pack.abandon()
            self._drop(branch)
            raise
        for keep in keeps:
            keep.unlink(missing_ok=True)
        writer.tip = commit
        self.commits += 1
        self.bytes_written += pack.size if keeps else 0
        return commit

    def _begin(self, branch: str, parent: str | None) -> tuple[Writer, PackSeries]:
        """What writes a capture that follows `parent`, and the packs that it goes into."""
        work = setup.work_directory(self._path)
        owner = leftovers.owner(work)
        if owner is not self._owner:
            self._owner = owner
            leftovers.remove(self._path)
        self._keep_packs_few()
        return self._writer(branch, parent), PackSeries(self._opened.pack_directory, work, sync=self._sync)

    def _drop(self, branch: str) -> None:
        """After a failure, what a writer knows may not be what there is."""
        writer = self._writers.pop(branch, None)
        if writer is not None:
            writer.close()

    def _keep_packs_few(self) -> None:
        """See to it that packs are consolidated: by the helper while a recording goes on, and here if it cannot keep up."""
        directory = self._opened.pack_directory
        packs = consolidate.candidates(directory)
        if consolidate.plan(packs):
            if len(packs) >= consolidate.TOO_MANY:
                consolidate.consolidate_small(self._path, sync=self._sync, wait=True)
                packs = consolidate.candidates(directory)
                if len(packs) >= consolidate.TOO_MANY:
                    consolidate.consolidate(self._path, sync=self._sync)
                    packs = consolidate.candidates(directory)
            else:
                if self._helper is None and self.commits >= consolidate.FAN:
                    with suppress(OSError):  # no more processes: see TOO_MANY
                        self._helper = Helper(self._path, sync=self._sync)
                if self._helper is not None:
                    self._helper.poke()
        names = {pack.path.name for pack in packs}
        if len(self._packs - names) > _VANISHED:
            self._opened.reopen()
            self._packs = names
        self._packs |= names

    def _write(self, writer: Writer, pack: PackSeries, snapshot: Snapshot, parents: Sequence[str], text: str) -> str:
        tree, counts = writer.write(snapshot, pack, self._find_file)
        facts = snapshot.facts
        if facts is not None:
            facts.pages_changed = counts.pages
        subject = text if text.strip() else message.made_subject(snapshot, counts.pages, len(counts.regions))
        who = identity(self._opened.git, facts.time if facts is not None else time.time())
        data = format_commit(tree, parents, who, who, message.compose(subject, snapshot))
        return pack.add(COMMIT, data).hex()

    def _writer(self, branch: str, parent: str | None) -> Writer:
        """The writer that knows what `parent` looked like: the one that wrote it, or one that reads it."""
        writer = self._writers.get(branch)
        if writer is None or writer.tip != parent:
            if writer is not None:
                writer.close()
            root = self._opened.root(parent) if parent is not None else None
            writer = self._writers[branch] = Writer(self._opened.objects, parent, root)
        return writer

    def _find_file(self, sha256: str) -> Oid | None:
        """The directory of a mapped file at the tip of some branch: there it is sure to stay."""
        objects = self._opened.objects
        for branch in list(refs.branches(self._opened.git))[-_TIPS_SEARCHED:]:
            entry = objects.find(self._opened.root(branch.tip), "/".join(file_path(sha256)), f"capture {branch.tip[:12]}")
            if entry is not None:
                return entry.oid
        return None
