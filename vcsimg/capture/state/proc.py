"""/proc/PID of one process, by a descriptor of its directory: no path is looked up twice, and another process with the same pid is
never read by mistake (once the process has ended, every access fails)."""

from __future__ import annotations

import errno
import os

from vcsimg.errors import NoSuchProcess
from vcsimg.kernel import statx

_CHUNK = 1 << 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_LASTING = frozenset(
    (
        "stat",
        "status",
        "personality",
        "attr/current",
        "loginuid",
        "oom_score_adj",
        "coredump_filter",
        "limits",
        "cgroup",
        "cmdline",
        "autogroup",
    )
)
"""Files that speak of the task at the time they are read, not at the time they were opened, as those of its memory do (auxv, maps)."""
_MOST = 256
"""Files kept open at most, of all processes together."""


class ProcDirectory:
    """`/proc/PID`, or `/proc/PID/fd` and other directories in it. Closed when it is no longer referred to."""

    _open = 0

    def __init__(self, pid: int, fd: int, *, keep: bool = False) -> None:
        self.pid = pid
        self.fd = fd
        self._keep = keep
        self._kept: dict[str, int] = {}

    @classmethod
    def of(cls, pid: int, *, keep: bool = False) -> ProcDirectory:
        """`keep`: for a process that is read again and again: files in it stay open where that makes no difference. Raises NoSuchProcess."""
        try:
            return cls(pid, os.open(f"/proc/{pid}", _DIRECTORY), keep=keep)
        except (FileNotFoundError, ProcessLookupError):
            raise NoSuchProcess(pid) from None

    def directory(self, name: str) -> ProcDirectory:
        """A directory in it. Raises OSError."""
        return ProcDirectory(self.pid, os.open(name, _DIRECTORY, dir_fd=self.fd))

    def __del__(self) -> None:
        os.close(self.fd)
        ProcDirectory._open -= len(self._kept)
        for fd in self._kept.values():
            os.close(fd)

    def read(self, name: str) -> bytes:
        """The whole content of a file. Raises OSError."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            content = b""
            while part := os.read(fd, _CHUNK):  # a short read is not the end: a seq_file gives whole lines, about a page at once
                content += part
            return content
        finally:
            os.close(fd)

    def read_at_once(self, name: str) -> bytes:
        """`read` for files that the kernel gives out whole as far as the buffer goes: one record (single_open, as status) or plain memory
        (auxv, environ), not the lists (maps, timers). Raises OSError."""
        kept = self._kept.get(name)
        if kept is not None:
            content = os.pread(kept, _CHUNK, 0)
            if len(content) < _CHUNK:
                return content
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            content = part = os.read(fd, _CHUNK)
            while len(part) == _CHUNK:
                part = os.read(fd, _CHUNK)
                content += part
            return content
        finally:
            if self._keep and name in _LASTING and name not in self._kept and ProcDirectory._open < _MOST:
                self._kept[name] = fd
                ProcDirectory._open += 1
            else:
                os.close(fd)

    def try_read_at_once(self, name: str) -> bytes | None:
        """`read_at_once`, or None where the kernel has no such file or does not let us."""
        try:
            return self.read_at_once(name)
        except OSError:
            return None

    def try_read(self, name: str) -> bytes | None:
        """`read`, or None where the kernel has no such file or does not let us."""
        try:
            return self.read(name)
        except OSError:
            return None

    def try_names(self, name: str) -> list[str]:
        """The entries of a directory in it; none where it cannot be read."""
        try:
            return self.directory(name).names()
        except OSError:
            return []

    def link(self, name: str) -> str:
        """The target of a link. A path that is longer than the kernel gives out is none: it does not begin with a slash. Raises OSError."""
        try:
            return os.readlink(name, dir_fd=self.fd)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return "(its path is too long)"

    def statx_raw(self, name: str) -> bytes:
        """struct statx of what a link leads to. Raises OSError."""
        return statx.statx_raw(name, self.fd)

    def names(self) -> list[str]:
        """The entries. Raises OSError."""
        return os.listdir(self.fd)
