"""System calls of this process that Python does not offer, by number."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6


def call(
    number: int,
    a: int | None = 0,
    b: int | None = 0,
    c: int | None = 0,
    d: int | None = 0,
    e: int | None = 0,
    f: int | None = 0,
) -> int:
    """The result of a system call; its arguments are machine words (numbers, or addresses of ctypes buffers). Raises OSError."""
    result: int = _syscall(number, a, b, c, d, e, f)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
