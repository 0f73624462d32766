"""Who may write what: advisory locks that the kernel drops when their owner ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Taken(Exception):
    """Another process holds the lock; `owner` is its pid, or None if it did not say."""

    def __init__(self, owner: int | None) -> None:
        super().__init__(owner)
        self.owner = owner


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which names our pid meanwhile. Raises Taken unless `wait`.

    The file stays when the lock is given back: removing it would let two processes lock two files of one name.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            text = os.pread(fd, 32, 0).strip()
            raise Taken(int(text) if text.isdigit() else None) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def allow_descriptors(count: int) -> None:
    """Raise our own limit of open files by `count`, as far as we may: a lock is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard), hard))
