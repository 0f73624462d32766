"""A repository as it is at one moment, for who reads all of it while others record.

Consolidation and `git gc` take packs away from under a reader, who then finds objects missing that are in newer packs. So files of objects
get a second name, in a repository of its own inside the folder vcsimg/, where nobody removes them; references are copied. It costs a
hard link a file, and what is removed meanwhile takes its room on the disk until the reader has done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vcsimg.store.leftovers import owner
from vcsimg.store.misleading import mend
from vcsimg.store.setup import work_directory

_COPIED = ("HEAD", "config", "shallow")
_TRIES = 100


@contextmanager
def still(repository: Path) -> Iterator[Path]:
    """A git directory with what a repository holds now, to be read until the block ends.

    It is the repository itself where none can be made: where the user may not write, or the file system has no hard links.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_directory(work_directory(repository)))
            _fill(repository, folder)
        except OSError:
            folder = repository
        yield folder


@contextmanager
def mended(repository: Path) -> Iterator[tuple[Path, list[str]]]:
    """The same, with new indexes for packs whose own are not safe to be read, and what was wrong with these. Raises StoreError, OSError."""
    with still(repository) as folder:
        yield folder, list(mend(folder)) if folder != repository else []


@contextmanager
def _directory(work: Path) -> Iterator[Path]:
    us = owner(work)  # as long as we refer to it, nobody takes the directory for that of somebody who has died
    folder = us.unfinished_directory()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del us


def _fill(repository: Path, folder: Path) -> None:
    # References first, so that what they lead to is there when objects are looked for; and what git moves, always in the
    # direction in which it moves: loose references into packed-refs, loose objects into packs.
    for path in _files(repository / "refs"):
        if path.suffix != ".lock":
            _copy(path, folder / path.relative_to(repository))
    for name in (*_COPIED, "packed-refs"):
        _copy(repository / name, folder / name)
    (folder / "refs").mkdir(exist_ok=True)
    objects = folder / "objects"
    (objects / "pack").mkdir(parents=True)
    for entry in sorted((repository / "objects").iterdir()):
        if entry.name != "pack" and entry.is_dir():
            for path in _files(entry):
                _link(path, objects / path.relative_to(repository / "objects"))
    alternates = objects / "info" / "alternates"
    if alternates.exists():
        # It may name folders relative to its own.
        lines = [str(repository / "objects" / line) for line in alternates.read_text().splitlines() if line and line[0] != "#"]
        alternates.unlink()
        alternates.write_text("".join(f"{line}\n" for line in lines))
    _packs(repository / "objects" / "pack", objects / "pack")


def _packs(there: Path, here: Path) -> None:
    """Link all packs, until nothing has changed from look to look: a new one may come, and an old one go, while a directory is read."""
    before: set[str] = set()
    for _ in range(_TRIES):
        names = set(os.listdir(there))
        for name in sorted(names - before):
            _link(there / name, here / name)
        if names == before:
            return
        before = names


def _files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (Path(path, name) for name in names)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        shutil.copyfile(path, to)


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError, FileExistsError):
        os.link(path, to)
