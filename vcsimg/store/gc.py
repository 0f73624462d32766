"""One pack of many, and nothing in it that no branch or tag leads to."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vcsimg.store import gitcommand, leftovers, setup
from vcsimg.store.consolidate import LARGE_LOCK
from vcsimg.store.locks import locked


@dataclass(frozen=True)
class Collected:
    """What a clean-up did: bytes of all objects and number of packs, before and after."""

    bytes_before: int
    bytes_after: int
    packs_before: int
    packs_after: int

    @property
    def freed(self) -> int:
        """Bytes; 0 where it has become larger, by an index or what was captured meanwhile."""
        return max(0, self.bytes_before - self.bytes_after)


def collect(path: Path) -> Collected:
    """Repack everything that is reachable, and drop what is not. Safe while captures are made, and never makes one wait.

    Small packs may be consolidated at the same time: git looks again for an object whose pack went. Raises StoreError, OSError.
    """
    work = setup.work_directory(path)
    directory = path / "objects" / "pack"
    before, packs = size_of(path), _packs(directory)
    with locked(work / LARGE_LOCK, wait=True):
        leftovers.remove(path)
        repack(path)
        gitcommand.run(path, "prune")
    return Collected(before, size_of(path), packs, _packs(directory))


def repack(path: Path) -> None:
    """One pack of everything that references lead to; packs with a .keep file stay. Raises StoreError.

    In a light clone without a bitmap: git fails to make one where objects are missing.
    """
    light = gitcommand.attempt(path, "config", "--get-regexp", r"remote\..*\.promisor").returncode == 0
    settings = ("-c", "repack.writeBitmaps=false") if light else ()
    # Git's own gc makes it, of commits that may be gone then.
    (path / "objects" / "info" / "commit-graph").unlink(missing_ok=True)
    shutil.rmtree(path / "objects" / "info" / "commit-graphs", ignore_errors=True)
    packs = path / "objects" / "pack"
    before = set(packs.glob("tmp_*"))
    try:
        gitcommand.run(path, *settings, "repack", "-a", "-d", "-q")
    except BaseException:
        # On a full disk, what git has begun would leave no room to try again.
        for file in set(packs.glob("tmp_*")) - before:
            file.unlink(missing_ok=True)
        raise


def size_of(path: Path) -> int:
    """Bytes of a repository's objects."""
    total = 0
    for file in (path / "objects").rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue  # a recording goes on
    return total


def _packs(directory: Path) -> int:
    return sum(1 for _ in directory.glob("*.pack"))
