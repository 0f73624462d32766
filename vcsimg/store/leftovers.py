"""What a writer that was killed left behind: removed by the next one.

Every process that writes holds the lock of a file vcsimg/owner-TOKEN, and its unfinished files name the token. The kernel drops the
lock when the process ends, so who can take it knows that its owner is dead: pids would not do, since they are
used again, and mean nothing to a process in another container.

Git locks a reference by a file NAME.lock, which stays when its maker is killed. So an owner writes down which references it is
about to move: their locks are removed with it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = re.compile(r"owner-([0-9a-f]{16})\Z")
_UNFINISHED = re.compile(r"([0-9a-f]{16})-.*\.tmp\Z")
_REFERENCE = re.compile(r"(?:HEAD|refs/heads/.+)\Z")
_LOCK_LASTS = 1.0
_KEEP = re.compile(r"vcsimg ([0-9a-f]{16})\n\Z")


class Owner:
    """This process as a writer of one repository; alive as long as anything refers to it. Use `owner` to get it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._numbers = itertools.count()
        while True:
            self.token = secrets.token_hex(8)
            path = work / f"owner-{self.token}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Somebody who cleans up may have come between, and have removed the file: he does so under the lock.
            if os.fstat(fd).st_nlink:
                break
            os.close(fd)
        self._fd = fd
        weakref.finalize(self, _release, fd, path, os.getpid())

    @contextmanager
    def moving(self, *references: str) -> Iterator[None]:
        """Whatever becomes of us in the block: git's locks on these references do not stay. Raises OSError."""
        os.pwrite(self._fd, "".join(f"{name}\n" for name in references).encode(), 0)
        yield
        os.ftruncate(self._fd, 0)

    def unfinished(self) -> tuple[int, Path]:
        """A new file, open for writing, that is removed by others if we do not live to give it its name. Raises OSError."""
        path = self._work / f"{self.token}-{next(self._numbers)}.tmp"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def unfinished_directory(self) -> Path:
        """A new directory, removed in the same way. Raises OSError."""
        return Path(tempfile.mkdtemp(".tmp", f"{self.token}-", self._work))

    def keep(self, path: Path) -> None:
        """Make the .keep file of a pack that no reference leads to yet. Raises OSError."""
        fd, name = self.unfinished()
        try:
            try:
                os.write(fd, f"vcsimg {self.token}\n".encode())
            finally:
                os.close(fd)
            name.rename(path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


_owners: weakref.WeakValueDictionary[tuple[int, Path], Owner] = weakref.WeakValueDictionary()


def owner(work: Path) -> Owner:
    """This process as a writer of the repository whose folder of ours is `work`. Raises OSError."""
    known = _owners.get((os.getpid(), work))
    if known is None:
        known = _owners[os.getpid(), work] = Owner(work)
    return known


def _release(fd: int, path: Path, pid: int) -> None:
    if pid == os.getpid():  # not in a child that was forked off
        path.unlink(missing_ok=True)
    os.close(fd)


def remove(repository: Path) -> None:
    """Remove unfinished files, .keep files, packs without index and locks on references whose writers have ended. Raises OSError."""
    work, packs = repository / "vcsimg", repository / "objects" / "pack"
    dead: dict[str, bool] = {}
    for path in work.iterdir():
        found = _UNFINISHED.match(path.name)
        if found and _is_dead(work, found[1], dead):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for path in packs.glob("pack-*.keep"):
        try:
            found = _KEEP.match(path.read_text(errors="replace"))
        except FileNotFoundError:
            continue
        if found and _is_dead(work, found[1], dead):
            if not path.with_suffix(".idx").exists():
                path.with_suffix(".pack").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    for path in work.iterdir():
        if _OWNER.match(path.name):
            with _dead_owner(path) as is_dead:
                if is_dead:
                    _unlock(repository, path)
                    path.unlink(missing_ok=True)


def _unlock(repository: Path, owner: Path) -> None:
    """Remove git's locks on the references that a dead owner was about to move.

    The lock may be a living one of git's, if the owner died before it had its own: those last for milliseconds.
    """
    try:
        names = owner.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for name in names:
        lock = repository / f"{name}.lock"
        if not _REFERENCE.match(name) or ".." in name:
            continue
        try:
            before = lock.stat()
            time.sleep(min(_LOCK_LASTS, max(0.0, before.st_mtime + _LOCK_LASTS - time.time())))
            after = lock.stat()
            if (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                lock.unlink()
        except FileNotFoundError:
            continue


def _is_dead(work: Path, token: str, known: dict[str, bool]) -> bool:
    if token not in known:
        ours = _owners.get((os.getpid(), work))
        with _dead_owner(work / f"owner-{token}") as is_dead:
            known[token] = not (ours is not None and ours.token == token) and is_dead
    return known[token]


@contextmanager
def _dead_owner(path: Path) -> Iterator[bool]:
    """Whether an owner's file has no owner any more; nobody becomes it within the block."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_dead = True
        except BlockingIOError:
            is_dead = False
        yield is_dead
    finally:
        os.close(fd)
