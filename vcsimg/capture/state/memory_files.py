"""Files that only the process still has: memory files (memfd_create(2)) and deleted files. Their content goes with the image.

They are read anew by each capture: their times do not tell whether they changed, since writes through a shared mapping leave
them as they are.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import Sealed
from vcsimg.image.snapshot import FileContent

_READ_AT_MOST = 64 << 20
"""Bytes of one file. They are read while the process is stopped, at about 3 GB/s."""


class MemoryFileProbe:
    """Reads files that no path leads to."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int | None, bytes | None]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "memfd" or (descriptor.type == "regular" and descriptor.where.links == 0)

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        self._found[descriptor.fd] = (seals_of(own), read_all(own, descriptor.where.size))

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        seals, data = self._found.pop(descriptor.fd)
        if seals is not None:
            report.add("files", Sealed(descriptor.fd, seals))
        if data is not None:
            report.keep(descriptor.fd, content_of(data))
        else:
            size = descriptor.where.size
            report.unsaved(
                f"fd {descriptor.fd}", f"no path leads to this file of {size} bytes, and only up to {_READ_AT_MOST} are kept"
            )


def read_all(own: int, size: int) -> bytes | None:
    """The content of an open file; None: it is too large. Raises OSError."""
    if size > _READ_AT_MOST:
        return None
    # Through /proc, since the descriptor itself may be open for writing only; O_NONBLOCK: a lease must not make us wait.
    reader = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(reader, size, 0)
    finally:
        os.close(reader)


def content_of(data: bytes) -> FileContent:
    """As the image keeps it."""
    return FileContent(hashlib.sha256(data).hexdigest(), len(data), None, lambda offset, length: data[offset : offset + length])


def seals_of(own: int) -> int | None:
    """F_SEAL_* bits; None where there are no seals. Raises OSError."""
    try:
        return fcntl.fcntl(own, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None  # its file system has no seals
        raise
