"""Section `pipes`: what waits in pipes and FIFOs, by tee(2), which copies without taking out."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

from vcsimg.capture.state.descriptors import O_ACCMODE, Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.pipes import Pipe, PipeData
from vcsimg.kernel.tee import tee


class PipeProbe:
    """Reads pipes through their reading ends; through a writing end, only the capacity."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int | None, list[bytes], bool]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type in ("pipe", "fifo")

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        capacity = fcntl.fcntl(own, fcntl.F_GETPIPE_SZ)
        if descriptor.flags & O_ACCMODE == os.O_WRONLY:
            self._found[descriptor.fd] = (capacity, None, [], _is_alone(own))
            return
        (queued,) = struct.unpack("i", fcntl.ioctl(own, termios.FIONREAD, bytes(4)))
        self._found[descriptor.fd] = (capacity, queued, _copy(own, capacity) if queued else [], _is_alone(own))

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        capacity, queued, data, alone = self._found.pop(descriptor.fd)
        report.add("pipes", Pipe(descriptor.fd, descriptor.where.inode, capacity, queued, alone or None))
        report.add("pipes", *(PipeData(descriptor.fd, part) for part in data))
        copied = sum(map(len, data))
        if queued is not None and copied < queued:
            report.unsaved(f"fd {descriptor.fd}", f"{queued - copied} bytes that wait in the pipe could not be copied")


def _is_alone(own: int) -> bool:
    """POLLHUP: nobody can write any more; POLLERR: nobody can read (fs/pipe.c, pipe_poll)."""
    poll = select.poll()
    poll.register(own, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _copy(source: int, capacity: int) -> list[bytes]:
    """What waits in a pipe: all at once, or packet by packet if it was written so (pipe(2), O_DIRECT)."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, capacity)
        except PermissionError:
            pass  # beyond pipe-max-size or the user's share: what fits is copied, the rest is noted
        tee(source, writer, capacity)
        os.close(writer)
        writer = -1
        parts = []
        while part := os.read(reader, capacity):
            parts.append(part)
        return parts
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
