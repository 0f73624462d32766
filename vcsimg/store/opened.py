"""A repository as libgit2 has it open."""

from __future__ import annotations

import re
from pathlib import Path

import pygit2

from vcsimg.errors import UnknownRevision
from vcsimg.store import refs, remotes, setup
from vcsimg.store.objects import Objects, Oid

_HEAD = re.compile(r"HEAD(?![^~^@:])")


class Opened:
    """What is open may be exchanged: `reopen` when packs have gone, since libgit2 never lets go of one that it knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git = setup.open_git(path)
        self.objects = Objects(self.git)
        self.promisor = remotes.promisor(self.git)

    def reopen(self) -> None:
        """Open it anew. Raises RepositoryMissing, StoreError, NewerFormat."""
        self.git = setup.open_git(self.path)
        self.objects.use(self.git)
        self.promisor = remotes.promisor(self.git)

    @property
    def pack_directory(self) -> Path:
        return self.path / "objects" / "pack"

    def commit(self, rev: str) -> pygit2.Commit:
        """The commit that a revision, as git understands them, means. Raises UnknownRevision.

        A push to here moves branches and not HEAD: where HEAD leads nowhere, the newest capture stands in for it.
        """
        try:
            if _HEAD.match(rev) and self.git.head_is_unborn and (newest := refs.newest(self.git)) is not None:
                rev = newest.tip + rev.removeprefix("HEAD")
            return self.git.revparse_single(rev).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError):
            raise UnknownRevision(str(self.path), rev) from None

    def root(self, rev: str) -> Oid:
        """The tree of a capture. Raises UnknownRevision."""
        return bytes(self.commit(rev).tree_id.raw)
