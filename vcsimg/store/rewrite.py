"""A history with some captures left out. Captures stand alone, so only parents change; trees stay what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pygit2

from vcsimg.store.objects import COMMIT, Objects, Oid

_PARENTS = re.compile(rb"(tree [0-9a-f]{40}\n)((?:parent [0-9a-f]{40}\n)*)")


@dataclass(frozen=True)
class RefUpdate:
    """A reference that must move."""

    name: str
    old: str
    new: str | None
    """None: nothing is left of it."""


def oldest_first(repo: pygit2.Repository) -> Iterator[pygit2.Commit]:
    """Every commit that a branch or tag leads to, parents before children."""
    tips = {oid for _, oid in tips_of(repo)}
    if not tips:
        return
    order = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE
    walker = repo.walk(None, order)
    for tip in tips:
        walker.push(pygit2.Oid(hex=tip))
    yield from walker


def tips_of(repo: pygit2.Repository) -> Iterator[tuple[str, str]]:
    """(name, commit id) of every branch and tag."""
    for name in sorted(repo.references):
        if name.startswith(("refs/heads/", "refs/tags/", "refs/remotes/")):
            try:
                yield name, str(repo.references[name].peel(pygit2.Commit).id)
            except (pygit2.GitError, KeyError):
                continue  # a tag of something that is no capture, or a symbolic reference to nothing


def rewrite(
    repo: pygit2.Repository, objects: Objects, keep: Callable[[str], bool], add: Callable[[bytes, bytes], Oid]
) -> list[RefUpdate]:
    """Make commits, with `add`, for a history of the captures to keep alone. Returns the references that must move.

    A commit all of whose ancestors are kept stays itself. Where a tip is left out, its nearest kept ancestor takes its place.
    """
    heirs: dict[str, tuple[str, ...]] = {}
    for commit in oldest_first(repo):
        name = str(commit.id)
        parents = [str(parent) for parent in commit.parent_ids]
        mapped = tuple(dict.fromkeys(heir for parent in parents for heir in heirs.get(parent, ())))
        if not keep(name):
            heirs[name] = mapped[:1]
        elif list(mapped) == parents:
            heirs[name] = (name,)
        else:
            data = objects.read(bytes(commit.id.raw), COMMIT, f"capture {name[:12]}")
            lines = b"".join(b"parent %s\n" % parent.encode() for parent in mapped)
            heirs[name] = (add(COMMIT, _PARENTS.sub(lambda found, lines=lines: found[1] + lines, data, count=1)).hex(),)  # type: ignore[misc]
    updates = []
    for reference, tip in tips_of(repo):
        heir = next(iter(heirs[tip]), None)
        old = str(repo.references[reference].target)
        if heir != tip and not isinstance(repo.references[reference].target, str):
            updates.append(RefUpdate(reference, old, heir))
    return updates
