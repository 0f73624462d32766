"""/proc/PID of one process, by a descriptor of its directory: no path is looked up twice, and another process with the same pid is
never read by mistake (once the process has ended, every access fails)."""

from __future__ import annotations

import os

from vcsimg.errors import NoSuchProcess
from vcsimg.kernel import statx

_CHUNK = 1 << 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ProcDirectory:
    """`/proc/PID`, or `/proc/PID/fd` and other directories in it. Closed when it is no longer referred to."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd

    @classmethod
    def of(cls, pid: int) -> ProcDirectory:
        """Raises NoSuchProcess."""
        try:
            return cls(pid, os.open(f"/proc/{pid}", _DIRECTORY))
        except (FileNotFoundError, ProcessLookupError):
            raise NoSuchProcess(pid) from None

    def directory(self, name: str) -> ProcDirectory:
        """A directory in it. Raises OSError."""
        return ProcDirectory(self.pid, os.open(name, _DIRECTORY, dir_fd=self.fd))

    def __del__(self) -> None:
        os.close(self.fd)

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
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            content = part = os.read(fd, _CHUNK)
            while len(part) == _CHUNK:
                part = os.read(fd, _CHUNK)
                content += part
            return content
        finally:
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
        """The target of a link. Raises OSError."""
        return os.readlink(name, dir_fd=self.fd)

    def statx_raw(self, name: str) -> bytes:
        """struct statx of what a link leads to. Raises OSError."""
        return statx.statx_raw(name, self.fd)

    def names(self) -> list[str]:
        """The entries. Raises OSError."""
        return os.listdir(self.fd)
