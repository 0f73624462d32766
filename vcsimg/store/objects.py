"""Git objects as bytes: ids, trees, commits. What reads objects from a repository is at the end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import pygit2

from vcsimg.errors import DamagedImage, HostileImage, KeyMissing
from vcsimg.store import cipher

BLOB = b"blob"
TREE = b"tree"
COMMIT = b"commit"
TAG = b"tag"


Oid = bytes
"""A SHA-1 object id: 20 bytes."""

_ENTRY = re.compile(rb"(100644|40000) ([^/\0]+)\0(.{20})", re.DOTALL)


class Entry(NamedTuple):
    """One entry of a tree."""

    is_tree: bool
    oid: Oid


def object_id(kind: bytes, data: bytes) -> Oid:
    """The id that git gives an object."""
    hasher = hashlib.sha1(b"%s %d\0" % (kind, len(data)), usedforsecurity=False)
    hasher.update(data)
    return hasher.digest()


def format_tree(entries: Mapping[str, Entry]) -> bytes:
    """A tree object, in git's order: by name, a directory's as if it ended in a slash."""
    named = [(f"{name}/" if is_tree else name, is_tree, oid) for name, (is_tree, oid) in entries.items()]
    named.sort()
    # By +, not by %: three times as quick, and a capture may write a thousand trees.
    return b"".join(
        [
            b"40000 " + name[:-1].encode() + b"\0" + oid if is_tree else b"100644 " + name.encode() + b"\0" + oid
            for name, is_tree, oid in named
        ]
    )


def parse_tree(data: bytes, where: str) -> dict[str, Entry]:
    """A tree's entries, in its order. Only plain files and directories are expected. Raises HostileImage."""
    entries: dict[str, Entry] = {}
    position = 0
    for found in _ENTRY.finditer(data):
        if found.start() != position:
            break
        position = found.end()
        try:
            name = found[2].decode("ascii")
        except UnicodeDecodeError:
            raise HostileImage(where, f"a name that no image has: {found[2][:80]!r}") from None
        if name in entries:
            raise HostileImage(where, f"{name!r} stands twice")
        entries[name] = Entry(found[1] == b"40000", found[3])
    if position != len(data):
        raise HostileImage(where, "it holds something else than files and directories")
    return entries


def format_commit(tree: Oid, parents: Iterable[str], author: str, committer: str, message: str) -> bytes:
    """A commit object. Author and committer as `Name <mail> SECONDS ZONE`."""
    lines = [f"tree {tree.hex()}"]
    lines.extend(f"parent {parent}" for parent in parents)
    lines.append(f"author {author}")
    lines.append(f"committer {committer}")
    return ("\n".join(lines) + "\n\n" + message).encode("utf-8", "replace")


class Objects:
    """Reads objects of a repository."""

    def __init__(self, repo: pygit2.Repository, *, strict: bool = False) -> None:
        self._strict = strict
        self._trusting = False
        self.use(repo)

    def use(self, repo: pygit2.Repository) -> None:
        """Read from the repository as it was opened anew: libgit2 never lets go of a pack that it knows."""
        self._odb = repo.odb
        self._sealed = cipher.required(repo)
        self._cipher = cipher.find(repo)

    def seal(self, blob: bytes) -> bytes:
        """A blob as it is to be written: encrypted, if this repository is. Raises KeyMissing."""
        if not self._sealed:
            return blob
        if self._cipher is None:
            raise KeyMissing("repository", "it is encrypted")
        return self._cipher.seal(blob)

    @contextmanager
    def unverified(self) -> Iterator[None]:
        """Switch libgit2's own check of ids off for several reads: the switch takes a third of the time of a small one."""
        if self._trusting:
            yield
            return
        self._trusting = True
        pygit2.settings.enable_strict_hash_verification(False)
        try:
            yield
        finally:
            pygit2.settings.enable_strict_hash_verification(True)
            self._trusting = False

    def read(self, oid: Oid, kind: bytes, where: str, *, verify: bool = True) -> bytes:
        """An object's content, decrypted. Raises DamagedImage when it is missing or broken, HostileImage when it is of another
        kind, KeyMissing when it is encrypted and the key is not here.

        `verify` compares it with its id. hashlib does so five times as fast as libgit2, whose own check is switched off
        here; memory blobs go without either, since every page has a hash of its own, unless these objects are `strict`.
        """
        try:
            with nullcontext() if self._trusting else self.unverified():
                number, data = self._odb.read(pygit2.Oid(raw=oid))
        except KeyError:
            raise DamagedImage(where, f"object {oid.hex()} is missing") from None
        except (pygit2.GitError, ValueError, OSError) as error:
            raise DamagedImage(where, f"object {oid.hex()} cannot be read: {error}") from None
        if _KINDS.get(number) != kind:
            raise HostileImage(where, f"object {oid.hex()} is not a {kind.decode()}")
        if (verify or self._strict) and object_id(kind, data) != oid:
            raise DamagedImage(where, f"object {oid.hex()} is damaged: its content has another id")
        content = bytes(data)
        return cipher.unsealed(content, self._cipher, where, sealed_only=self._sealed) if kind == BLOB else content

    def tree(self, oid: Oid, where: str) -> dict[str, Entry]:
        """The entries of a tree. Raises DamagedImage, HostileImage."""
        return parse_tree(self.read(oid, TREE, where), where)

    def find(self, root: Oid, path: str, where: str) -> Entry | None:
        """The entry at a path below a tree, or None."""
        entry = Entry(True, root)
        for name in path.split("/"):
            if not entry.is_tree:
                return None
            found = self.tree(entry.oid, where).get(name)
            if found is None:
                return None
            entry = found
        return entry


_KINDS = {
    int(pygit2.enums.ObjectType.BLOB): BLOB,
    int(pygit2.enums.ObjectType.TREE): TREE,
    int(pygit2.enums.ObjectType.COMMIT): COMMIT,
    int(pygit2.enums.ObjectType.TAG): TAG,
}
