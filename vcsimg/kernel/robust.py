"""get_robust_list(2)."""

from __future__ import annotations

import ctypes

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_head = ctypes.c_uint64()
_length = ctypes.c_size_t()


def robust_list(tid: int) -> tuple[int, int]:
    """Address of the list's head in that process, and the length of struct robust_list_head.

    Raises OSError. Not for concurrent use.
    """
    call(NR["get_robust_list"], tid, ctypes.addressof(_head), ctypes.addressof(_length))
    return _head.value, _length.value
