"""How a thread is scheduled, asked from outside: sched_getattr(2), ioprio_get(2)."""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_IOPRIO_WHO_PROCESS = 1
_LAYOUT = struct.Struct("<IIQiIQQQII")
_buffer = ctypes.create_string_buffer(_LAYOUT.size)
_address = ctypes.addressof(_buffer)


class SchedulingAttributes(NamedTuple):
    """struct sched_attr (linux/sched/types.h); times in nanoseconds."""

    size: int
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int
    util_min: int
    util_max: int


def attributes(tid: int) -> SchedulingAttributes:
    """Raises OSError. Not for concurrent use."""
    call(NR["sched_getattr"], tid, _address, _LAYOUT.size, 0)
    return SchedulingAttributes._make(_LAYOUT.unpack(_buffer.raw))


def io_priority(tid: int) -> int:
    """Class in bits 13 to 15, level below. Raises OSError."""
    return call(NR["ioprio_get"], _IOPRIO_WHO_PROCESS, tid)
