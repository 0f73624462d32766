"""mq_getattr(3) on a descriptor of any kind."""

from __future__ import annotations

import ctypes
import os
import re
import struct

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

FILE_SIZE = 80
"""What fstat(2) says of every message queue (ipc/mqueue.c, FILENT_SIZE)."""

SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = 0, 1, 2
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


def receive(fd: int, size: int) -> tuple[bytes, int] | None:
    """The first message, which is taken out, and its priority; None when none waits. `size`: mq_msgsize; `fd` must not block. Raises OSError."""
    buffer = ctypes.create_string_buffer(size)
    priority = ctypes.c_uint()
    try:
        length = call(NR["mq_timedreceive"], fd, ctypes.addressof(buffer), size, ctypes.addressof(priority), 0)
    except BlockingIOError:
        return None
    return buffer.raw[:length], priority.value


def send(fd: int, data: bytes, priority: int) -> None:
    """Raises OSError."""
    buffer = ctypes.create_string_buffer(data, max(len(data), 1))
    call(NR["mq_timedsend"], fd, ctypes.addressof(buffer), len(data), priority, 0)


def notified(fd: int) -> tuple[int, int, int] | None:
    """Who waits for mq_notify(3) of a queue that is open for reading: SIGEV_*, the signal, the process. None: nobody. Raises OSError."""
    words = {name: int(value) for name, value in re.findall(rb"(\w+):(\d+)", os.pread(fd, 200, 0))}
    if not words.get(b"NOTIFY_PID"):
        return None
    return words.get(b"NOTIFY", SIGEV_THREAD), words.get(b"SIGNO", 0), words[b"NOTIFY_PID"]
