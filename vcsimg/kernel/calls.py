"""System calls of this process, by number: those that Python does not offer, and many in a row."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import CALL_LOOP

Calls = npt.NDArray[np.uint64]
"""System calls, shape (n, 7): the number and six arguments of each."""
Results = npt.NDArray[np.int64]
"""Their results, shape (n,): negative errno for one that failed."""

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


_ENTER = bytes.fromhex(
    "53"  # push rbx
    "55"  # push rbp
    "4154"  # push r12
    "4889fb"  # mov rbx, rdi
    "4889f5"  # mov rbp, rsi
    "4989d4"  # mov r12, rdx
)
_LEAVE = bytes.fromhex(
    "415c"  # pop r12
    "5d"  # pop rbp
    "5b"  # pop rbx
    "c3"  # ret
)
_PROT_READ_EXEC = 5
_code: list[ctypes.c_char] = []
"""What keeps the memory of the loop."""


@cache
def loop() -> Callable[[int, int, int], None] | None:
    """void loop(calls, results, count), arrays as above, of one call at least: makes the calls one after the other. None on another kind of processor, or where
    memory cannot be made executable (SELinux, execmem)."""
    if platform.machine() != "x86_64":
        return None
    memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(_ENTER + CALL_LOOP + _LEAVE)
    code = ctypes.c_char.from_buffer(memory)
    try:
        call(NR["mprotect"], ctypes.addressof(code), mmap.PAGESIZE, _PROT_READ_EXEC)
    except OSError:
        return None
    _code.append(code)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(ctypes.addressof(code))


def call_in_a_row(calls: Calls) -> Results:
    """Many system calls in one step, 0.1 µs each and what they take: one alone costs 1 µs of Python. A signal can make one of them return EINTR."""
    results = np.zeros(len(calls), np.int64)
    function = loop()
    if len(calls) and function is not None:
        function(calls.ctypes.data, results.ctypes.data, len(calls))
        return results
    for index, (number, *arguments) in enumerate(calls.tolist()):
        try:
            results[index] = call(number, *arguments)
        except OSError as error:
            results[index] = -(error.errno or 0)
    return results
