"""Thinning old history: what is left out is gone for good, what is kept is whole, since captures do not need one another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2

from vcsimg.store import gitcommand
from vcsimg.store.consolidate import LARGE_LOCK, SMALL_LOCK
from vcsimg.store.gc import repack, size_of
from vcsimg.store.locks import locked
from vcsimg.store.objects import Objects
from vcsimg.store.pack import PackWriter
from vcsimg.store.rewrite import RefUpdate, oldest_first, rewrite, tips_of


@dataclass(frozen=True)
class Pruned:
    """What a pruning did: captures kept and left out, bytes of the repository before and after."""

    kept: int
    removed: int
    bytes_before: int
    bytes_after: int

    @property
    def freed(self) -> int:
        """Bytes; 0 where it has become larger, by an index or what was captured meanwhile."""
        return max(0, self.bytes_before - self.bytes_after)


def chosen(repo: pygit2.Repository, *, every: float | None, last: int | None, tagged: bool) -> set[str]:
    """The captures to keep: of every branch its tip, its newest `last`, one in every `every` seconds; every tagged one if
    `tagged`; and every one that several others come from."""
    keep: set[str] = set()
    children: dict[str, int] = {}
    for commit in oldest_first(repo):
        for parent in commit.parent_ids:
            children[str(parent)] = children.get(str(parent), 0) + 1
    keep.update(name for name, count in children.items() if count > 1)
    for name, tip in tips_of(repo):
        if name.startswith("refs/tags/"):
            if tagged:
                keep.add(tip)
            continue
        keep.add(tip)
        slot = None
        for count, one in enumerate(_line(repo[tip].peel(pygit2.Commit))):
            now = int(one.commit_time // every) if every else None
            if (last is not None and count < last) or (now is not None and now != slot):
                keep.add(str(one.id))
            slot = now
    return keep


def _line(commit: pygit2.Commit) -> Iterator[pygit2.Commit]:
    """A capture and its first parents."""
    yield commit
    while commit.parent_ids:
        commit = commit.parents[0]
        yield commit


def prune(repo: pygit2.Repository, objects: Objects, path: Path, keep: Collection[str], *, sync: bool) -> Pruned:
    """Leave every capture out that is not in `keep`, and free its bytes. The caller holds the locks of all branches.

    References move all at once, when the new commits are durable: killed before, nothing has changed; killed after, the
    bytes are freed by the next `git gc`. Raises StoreError, OSError.
    """
    total = sum(1 for _ in oldest_first(repo))
    before = size_of(path)
    work = path / "vcsimg"
    with locked(work / LARGE_LOCK, wait=True), locked(work / SMALL_LOCK, wait=True):
        writer = PackWriter(path / "objects" / "pack", work, sync=sync)
        try:
            updates = rewrite(repo, objects, lambda name: name in keep, lambda kind, data: writer.add(kind, data))
            made = writer.finish()
        except BaseException:
            writer.abandon()
            raise
        if updates:
            update_references(path, updates)
            gitcommand.run(path, "reflog", "expire", "--expire=now", "--all")
        if made is not None:
            made.unlink()
        repack(path)
        gitcommand.run(path, "prune", "--expire=now")
    kept = sum(1 for _ in oldest_first(pygit2.Repository(str(path))))
    return Pruned(kept, total - kept, before, size_of(path))


def would_prune(repo: pygit2.Repository, path: Path, keep: Collection[str]) -> Pruned:
    """What `prune` would keep and leave out; the bytes are those of now."""
    total = kept = 0
    for commit in oldest_first(repo):
        total += 1
        kept += str(commit.id) in keep
    size = size_of(path)
    return Pruned(kept, total - kept, size, size)


def update_references(path: Path, updates: Collection[RefUpdate]) -> None:
    """Move references, all or none. An annotated tag becomes a plain one: it signs a commit that is no more."""
    lines = ["start"]
    for update in updates:
        if update.new is None:
            lines.append(f"delete {update.name} {update.old}")
        else:
            lines.append(f"update {update.name} {update.new} {update.old}")
    # A log of where they were, if the user has git keep one, would keep what is left out.
    settings = ("-c", "core.logAllRefUpdates=false")
    gitcommand.run(path, *settings, "update-ref", "--stdin", text="\n".join([*lines, "prepare", "commit", ""]))
