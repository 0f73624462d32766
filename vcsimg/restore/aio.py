"""Contexts of asynchronous I/O: io_setup(2), fs/aio.c. The kernel knows a context by the address of its ring, which moves with the ring.

Events that wait in the ring must be ones that the kernel has put there, so as many requests are made that are done at once, and their
events get the content of those that waited.
"""

from __future__ import annotations

import os
import select
import struct

from vcsimg.errors import AccessError, HostileImage, RestoreError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.region import Region
from vcsimg.kernel import mman
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import words
from vcsimg.restore.skeleton import Skeleton

_NAME = "/[aio]"
_RING = struct.Struct("<IIIIIIII")  # struct aio_ring: id, nr, head, tail, magic, compat_features, incompat_features, header_length
_MAGIC = 0xA10A10A1
_EVENT = 32  # struct io_event
_IOCB = struct.Struct("<QIIHhIQQqQII")  # struct iocb
_IOCB_CMD_POLL = 5
_SPARE = 2
_WORD = 8


def is_ring(region: Region) -> bool:
    return region.name.startswith(_NAME)


def make_rings(skeleton: Skeleton, notes: list[str]) -> None:
    """All contexts of a process, with the events that wait; nothing is mapped at their places yet. Raises RestoreError, HostileImage."""
    for region in skeleton.process.regions:
        if is_ring(region):
            _make(skeleton, region)
            notes.append(
                f"process {skeleton.pid} has a context of asynchronous I/O: requests (io_submit) that were under way are lost"
            )


def _make(skeleton: Skeleton, region: Region) -> None:
    what = f"process {skeleton.pid} asynchronous I/O context {region.start:#x}"
    memory = skeleton.process.memory
    assert isinstance(memory, ImageMemory)
    size = region.end - region.start
    try:
        content = memory.read(region.start, size)
    except AccessError:
        raise RestoreError(what, "its ring is not in the capture") from None
    _, slots, head, tail, magic, *_, header = _RING.unpack_from(content)
    if magic != _MAGIC or header != _RING.size or not slots or header + slots * _EVENT > size or head >= slots or tail >= slots:
        raise HostileImage(what, "that is no ring of events")
    remote = skeleton.main
    room = remote.put(bytes(_WORD))
    remote.all([(NR["io_setup"], ((slots - _SPARE) // 2, room))], what)
    made = int.from_bytes(remote.read(room, _WORD), "little")
    if _RING.unpack(remote.read(made, _RING.size))[1] != slots:
        raise RestoreError(what, f"this machine, with another number of processors, makes no context for {slots} events")
    flags = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED
    remote.all([(NR["mremap"], (made, size, size, flags, region.start))], what)
    remote.clear()
    waiting = (tail - head) % slots
    if waiting:
        _complete(skeleton, region.start, waiting, what)
    for index in range(waiting):
        at = header + (head + index) % slots * _EVENT
        os.pwrite(skeleton.memory, content[at : at + _EVENT], region.start + header + index * _EVENT)


def _complete(skeleton: Skeleton, context: int, count: int, what: str) -> None:
    """Requests that are done at once: the socket that drives the skeleton can always be written to."""
    remote = skeleton.main
    request = _IOCB.pack(0, 0, 0, _IOCB_CMD_POLL, 0, skeleton.transport, select.POLLOUT, 0, 0, 0, 0, 0)
    for _ in range(count):
        pointer = remote.put(words((remote.put(request),)))
        (submitted,) = remote.all([(NR["io_submit"], (context, 1, pointer))], what)
        remote.clear()
        if submitted != 1:
            raise RestoreError(what, "the events that wait cannot be put in")
