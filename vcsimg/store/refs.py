"""Branches: reading them, and moving one forward, last of all that a capture does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2

from vcsimg.errors import RepositoryBusy, StoreError
from vcsimg.store import leftovers, setup
from vcsimg.store.setup import private

PREFIX = "refs/heads/"
_PROCESS = "branch.{}.vcsimgProcess"

_WAITS = tuple(0.001 * 2**step for step in range(10))
"""Seconds, 1.0 in all."""

Process = tuple[int, int, str]
"""A process instance: pid, start time in ticks since boot, boot id."""


@dataclass(frozen=True)
class Branch:
    """One branch: its name without refs/heads/, and the capture at its tip."""

    name: str
    tip: str


def branches(repo: pygit2.Repository) -> Iterator[Branch]:
    """All branches, by name."""
    for name in sorted(repo.references):
        if name.startswith(PREFIX):
            try:
                reference = repo.references[name].resolve()
            except (pygit2.GitError, KeyError):
                continue  # a symbolic one that leads to none, or one that went just now
            yield Branch(name.removeprefix(PREFIX), str(repo[reference.target].peel(pygit2.Commit).id))


def newest(repo: pygit2.Repository) -> Branch | None:
    """The branch with the newest capture; None when there is none."""
    return max(branches(repo), key=lambda branch: repo[branch.tip].peel(pygit2.Commit).commit_time, default=None)


def tip(repo: pygit2.Repository, branch: str) -> str | None:
    """The capture at the tip of a branch; None when there is no such branch."""
    reference = repo.references.get(PREFIX + branch)
    return None if reference is None else str(reference.target)


def dedicate(repo: pygit2.Repository, branch: str, process: Process) -> None:
    """Say whose branch it is, before there is a capture of that process: in git's configuration, which goes when git deletes the branch."""
    repo.config[_PROCESS.format(branch)] = " ".join(map(str, process))


def process_of(repo: pygit2.Repository, branch: str) -> Process | None:
    """The process that a branch was begun for, if one was named."""
    try:
        words = str(repo.config[_PROCESS.format(branch)]).split()
    except KeyError:
        return None
    return (int(words[0]), int(words[1]), words[2]) if len(words) == 3 and all(map(str.isdecimal, words[:2])) else None


def check_name(path: Path, branch: str) -> None:
    """Raises StoreError when git would not take the name."""
    if not pygit2.reference_is_valid_name(PREFIX + branch):
        raise StoreError(str(path), f"{branch!r} cannot be the name of a branch")


def move(repo: pygit2.Repository, path: Path, branch: str, old: str | None, new: str, *, sync: bool, head: bool = True) -> None:
    """Move a branch from `old` (None: it must not exist) to `new`, atomically, and, with `head`, make it the one HEAD names.

    Raises RepositoryBusy when somebody else has moved it.
    """
    name = PREFIX + branch
    pygit2.settings.enable_fsync_gitdir(sync)
    with private(), leftovers.owner(setup.work_directory(path)).moving(name, "HEAD"):
        _patiently(lambda: _set(repo, path, branch, old, new))
        now = repo.references.get("HEAD")
        if head and (now is None or now.raw_target != name.encode()):
            _patiently(lambda: repo.set_head(name))


def _set(repo: pygit2.Repository, path: Path, branch: str, old: str | None, new: str) -> None:
    name = PREFIX + branch
    try:
        if old is None:
            repo.references.create(name, pygit2.Oid(hex=new))
        else:
            reference = repo.references[name]
            if str(reference.target) != old:
                raise RepositoryBusy(str(path), branch, None)
            reference.set_target(pygit2.Oid(hex=new))
    except (pygit2.AlreadyExistsError, KeyError):
        raise RepositoryBusy(str(path), branch, None) from None
    except pygit2.GitError as error:
        if "old reference value does not match" in str(error):
            raise RepositoryBusy(str(path), branch, None) from None
        raise


def _patiently(action: Callable[[], None]) -> None:
    """Do what needs a lock of git's, which somebody may hold for a moment: another recorder, `git pack-refs`. As git does, which waits for a second
    (core.packedRefsTimeout); libgit2 does not wait."""
    for wait in _WAITS:
        try:
            action()
        except (OSError, pygit2.GitError) as error:  # which of them, libgit2 tells by the state of the lock
            if "lock" not in str(error):
                raise
            time.sleep(wait)
        else:
            return
    action()
