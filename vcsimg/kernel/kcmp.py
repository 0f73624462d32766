"""kcmp(2): do two processes share a kernel object?"""

from __future__ import annotations

import ctypes

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

FILE = 0
VM = 1
FILES = 2
FS = 3
SIGHAND = 4
IO = 5
SYSVSEM = 6
EPOLL_TFD = 7


def same(pid1: int, pid2: int, kind: int, index1: int = 0, index2: int = 0) -> bool:
    """Whether it is the same object: for FILE the indexes are descriptors. Raises OSError (ENOSYS, EPERM, ESRCH, EBADF)."""
    return call(NR["kcmp"], pid1, pid2, kind, index1, index2) == 0


def order(pid1: int, pid2: int, kind: int, index1: int = 0, index2: int = 0) -> int:
    """-1, 0 or 1: a total order of the objects, the same until the next boot. Raises OSError."""
    return (0, -1, 1)[call(NR["kcmp"], pid1, pid2, kind, index1, index2)]


class _EpollSlot(ctypes.Structure):
    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


def watches(pid: int, epoll: int, target: int, offset: int, fd: int) -> bool:
    """Whether the `offset`-th watch that epoll descriptor `epoll` has for descriptor number `target` is on the open file of `fd`.

    Raises OSError; ENOENT when there is no such watch.
    """
    slot = _EpollSlot(epoll, target, offset)
    return call(NR["kcmp"], pid, pid, EPOLL_TFD, fd, ctypes.addressof(slot)) == 0
