"""Files that regions map: the file at the path if it has the content that it had, else that content from the image. Never another one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vcsimg.errors import RestoreError
from vcsimg.image.pages import FileSource
from vcsimg.image.snapshot import MappedFile
from vcsimg.restore.objects import Objects

_CHUNK = 1 << 20
_DELETED = " (deleted)"


@dataclass
class MappedFiles:
    """`root`: the folder that is the root of the processes, as we see it; `open`: opens one there; `places`: where to open files that
    are not to be opened at their path, by path and inode."""

    root: str
    objects: Objects
    open: Callable[[str, int], int]
    places: Mapping[tuple[str, int], str] = field(default_factory=dict)
    _open: dict[str, int] = field(default_factory=dict)
    _others: list[int] = field(default_factory=list)
    _sums: dict[tuple[int, int], str] = field(default_factory=dict)

    def same_content(self, file: MappedFile, files: FileSource) -> int | None:
        """A descriptor of ours of a file with the captured content, for reading. None when the content was not known, so that the
        region's own pages are all there is. Raises RestoreError when it is to be had nowhere."""
        if file.sha256 is None:
            return None
        fd = self._open.get(file.sha256)
        if fd is not None:
            return fd
        fd = self._at_path(file)
        if fd is None:
            content = self.objects.content(file.sha256, files, os.path.basename(file.path.removesuffix(_DELETED)))
            if content is None:
                raise RestoreError(f"mapped file {file.path}", "it is gone or has changed, and the image does not hold its content")
            fd = os.open(f"/proc/self/fd/{content}", os.O_RDONLY | os.O_CLOEXEC)
        self._open[file.sha256] = fd
        return fd

    def _at_path(self, file: MappedFile) -> int | None:
        path = self.root + file.path.removesuffix(_DELETED)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return None
            fd = self.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            return None
        facts = os.fstat(fd)
        if stat.S_ISREG(facts.st_mode) and facts.st_size == file.size and self._sum(fd, facts) == file.sha256:
            return fd
        os.close(fd)
        return None

    def _sum(self, fd: int, facts: os.stat_result) -> str:
        key = (facts.st_dev, facts.st_ino)
        if key not in self._sums:
            digest = hashlib.sha256()
            position = 0
            while data := os.pread(fd, _CHUNK, position):
                digest.update(data)
                position += len(data)
            self._sums[key] = digest.hexdigest()
        return self._sums[key]

    def keep(self, fd: int) -> None:
        """Close it with the others."""
        self._others.append(fd)

    def close(self) -> None:
        for fd in (*self._open.values(), *self._others):
            os.close(fd)
        self._open.clear()
        self._others.clear()
