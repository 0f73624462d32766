"""What the operating system and libgit2 say, in the words of vcsimg.errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2

from vcsimg.errors import NO_ROOM, DiskFull, RepositoryReadOnly, StoreError, VcsimgError

_OBJECT = re.compile(r"'?([0-9a-f]{40})'?")
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Every failure of the block below becomes a StoreError that names the repository."""
    try:
        yield
    except VcsimgError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(str(path), error.errno) from error
        if error.errno in _READ_ONLY:
            raise RepositoryReadOnly(str(path)) from error
        raise StoreError(str(path), str(error)) from error
    except (pygit2.GitError, KeyError, ValueError) as error:
        text = str(error)
        lower = text.lower()
        for number in NO_ROOM:
            if os.strerror(number).lower() in lower:
                raise DiskFull(str(path), number) from error
        if "permission denied" in lower or "read-only" in lower:
            raise RepositoryReadOnly(str(path)) from error
        if isinstance(error, pygit2.GitError):
            raise StoreError(str(path), text) from error
        if isinstance(error, KeyError) and (found := _OBJECT.fullmatch(text)):
            raise StoreError(str(path), f"object {found[1]} is missing", remedy="`vcsimg fsck` says what is lost.") from error
        raise
