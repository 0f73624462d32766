"""mq_getattr(3) on a descriptor of any kind."""

from __future__ import annotations

import ctypes
import struct

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

FILE_SIZE = 80
"""What fstat(2) says of every message queue (ipc/mqueue.c, FILENT_SIZE)."""

_ATTRIBUTES = struct.Struct("<8q")


def attributes(fd: int) -> tuple[int, int, int] | None:
    """The most messages, the most bytes of one, and how many wait; None when it is not a message queue."""
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    try:
        call(NR["mq_getsetattr"], fd, 0, ctypes.addressof(buffer))
    except OSError:
        return None
    _, most, size, waiting, *_ = _ATTRIBUTES.unpack(buffer.raw)
    return most, size, waiting
