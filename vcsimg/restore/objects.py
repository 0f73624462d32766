"""Files that no path leads to, which regions and descriptors of any process of the image may have in common: anonymous shared memory, memory
files, deleted files. Each is made once, by us, and known by the device and inode that it had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from vcsimg.errors import RestoreError
from vcsimg.image.pages import FileSource
from vcsimg.image.units import PAGE_SIZE
from vcsimg.image.versions import Read

_CHUNK = 2 << 20
_MFD_CLOEXEC = 1
_MFD_ALLOW_SEALING = 2
_NAME = 60

Key = tuple[str, int]
"""Device and inode."""


class Objects:
    """Descriptors of ours, closed by close()."""

    def __init__(self) -> None:
        self._made: dict[Key, int] = {}
        self._contents: dict[str, int] = {}
        self.seals: dict[Key, int] = {}

    def get(self, key: Key) -> int | None:
        return self._made.get(key)

    def make(self, key: Key, name: str, size: int) -> int:
        """The object, of at least `size` bytes. Raises RestoreError."""
        fd = self._made.get(key)
        try:
            if fd is None:
                fd = self._made[key] = os.memfd_create(
                    name.encode()[:200].decode(errors="replace"), _MFD_CLOEXEC | _MFD_ALLOW_SEALING
                )
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        except OSError as error:
            raise RestoreError(f"shared memory {name}", str(error.strerror)) from None
        return fd

    def adopt(self, key: Key, fd: int) -> None:
        """An object that was made elsewhere; it is closed with the others."""
        self._made[key] = fd

    def content(self, sha256: str, files: FileSource, name: str) -> int | None:
        """A file with this content; None when the image does not have it."""
        fd = self._contents.get(sha256)
        if fd is None:
            size = files.size(sha256)
            if size is None:
                return None
            fd = os.memfd_create(name[:200], _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
            self._contents[sha256] = fd
            copy(sha256, files, fd)
        return fd

    def close(self) -> None:
        for fd in (*self._made.values(), *self._contents.values()):
            os.close(fd)
        self._made.clear()
        self._contents.clear()

    def apply_seals(self) -> None:
        """At last: a sealed file cannot be filled."""
        import fcntl

        for key, seals in self.seals.items():
            if key in self._made and seals:
                fcntl.fcntl(self._made[key], fcntl.F_ADD_SEALS, seals)


def nameless(root: str, path: str, mode: int) -> int:
    """An empty file without a name where another one was, with its permissions; in memory, if none can be made there. Raises OSError."""
    fd = -1
    if path.startswith("/"):
        with suppress(OSError):
            fd = os.open(root + os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    if fd < 0:
        fd = os.memfd_create(os.path.basename(path)[:_NAME] or "deleted", _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    os.fchmod(fd, mode & 0o7777)
    return fd


def copy(sha256: str, files: FileSource, fd: int) -> None:
    """Write a content of the image to a file. Raises RestoreError, DamagedImage."""
    size = files.size(sha256) or 0
    try:
        blank = os.fstat(fd).st_blocks == 0
        os.ftruncate(fd, size)
        for offset in range(0, size, _CHUNK):
            data = files.read(sha256, offset, _CHUNK)
            for start, end in _written(data) if blank else [(0, len(data))]:
                os.pwrite(fd, data[start:end], offset + start)
    except OSError as error:
        raise RestoreError("content of a file", str(error.strerror)) from None


def _written(data: bytes) -> Iterator[tuple[int, int]]:
    """Stretches of pages that hold anything else than zeros: the others stay holes."""
    pages = (
        np.frombuffer(data.ljust(-(-len(data) // PAGE_SIZE) * PAGE_SIZE, b"\0"), np.uint64).reshape(-1, PAGE_SIZE // 8).any(axis=1)
    )
    edges = np.flatnonzero(np.diff(pages.astype(np.int8), prepend=0, append=0)) * PAGE_SIZE
    for start, end in edges.reshape(-1, 2):
        yield int(start), min(int(end), len(data))


def pour(read: Read, fd: int) -> int:
    """Write a content to a file, from its beginning. Returns its size. Raises OSError, DamagedImage."""
    offset = 0
    while data := read(offset, _CHUNK):
        write_at(fd, data, offset)
        offset += len(data)
    return offset


def write_at(fd: int, data: bytes, offset: int) -> None:
    """All of it. Raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
