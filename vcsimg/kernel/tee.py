"""tee(2)."""

from __future__ import annotations

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_SPLICE_F_NONBLOCK = 2


def tee(source: int, target: int, length: int) -> int:
    """Copy up to `length` bytes from one pipe to another without taking them out. Returns how many, 0 if none waits. Raises OSError."""
    try:
        return call(NR["tee"], source, target, length, _SPLICE_F_NONBLOCK)
    except BlockingIOError:
        return 0
