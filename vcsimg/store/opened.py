"""A repository as libgit2 has it open."""

from __future__ import annotations

import re
from pathlib import Path

import pygit2

from vcsimg.errors import StoreError, UnknownRevision
from vcsimg.store import refs, remotes, setup
from vcsimg.store.misleading import misleading
from vcsimg.store.objects import Objects, Oid

_HEAD = re.compile(r"HEAD(?![^~^@:])")


class Opened:
    """What is open may be exchanged: `reopen` when packs have gone, since libgit2 never lets go of one that it knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._git = setup.open_git(path)
        self._objects = Objects(self._git)
        self._misleading = next(iter(misleading(self.pack_directory)), None)
        self.promisor = remotes.promisor(self._git)

    def reopen(self) -> None:
        """Open it anew. Raises RepositoryMissing, StoreError, NewerFormat."""
        self._git = setup.open_git(self.path)
        self._objects.use(self._git)
        self._misleading = next(iter(misleading(self.pack_directory)), None)
        self.promisor = remotes.promisor(self._git)

    @property
    def git(self) -> pygit2.Repository:
        """Raises StoreError if libgit2 would not survive a look at it."""
        self._check()
        return self._git

    @property
    def objects(self) -> Objects:
        """Raises StoreError in the same way."""
        self._check()
        return self._objects

    def _check(self) -> None:
        if self._misleading is not None:
            reason = f"objects/pack/{self._misleading.name} is damaged: it leads beyond the end of its pack"
            remedy = (
                f"`vcsimg fsck` says whether anything is lost. If nothing is: mv {self._misleading} /tmp && git index-pack "
                f"{self._misleading.with_suffix('.pack')}. `vcsimg fsck --salvage PATH` copies what is whole."
            )
            raise StoreError(str(self.path), reason, remedy=remedy)

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
