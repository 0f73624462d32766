"""userfaultfd(2), as far as write-protection and filling memory need it.

The descriptor acts on the address space of the process that made it, whoever holds it now.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

UFFD_API = 0xAA
UFFD_USER_MODE_ONLY = 1
"""Faults of the kernel are not reported: needs no privilege where vm.unprivileged_userfaultfd is 0."""

UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFD_FEATURE_WP_ASYNC = 1 << 15

UFFDIO_REGISTER_MODE_MISSING = 1 << 0
UFFDIO_REGISTER_MODE_WP = 1 << 1
UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 1 << 1

OPEN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY
"""Arguments of the userfaultfd system call for an ordinary user."""


class UffdioApi(ctypes.Structure):
    """struct uffdio_api"""

    _fields_ = (("api", ctypes.c_uint64), ("features", ctypes.c_uint64), ("ioctls", ctypes.c_uint64))


class UffdioRange(ctypes.Structure):
    """struct uffdio_range"""

    _fields_ = (("start", ctypes.c_uint64), ("len", ctypes.c_uint64))


class UffdioRegister(ctypes.Structure):
    """struct uffdio_register"""

    _fields_ = (("range", UffdioRange), ("mode", ctypes.c_uint64), ("ioctls", ctypes.c_uint64))


class UffdioWriteprotect(ctypes.Structure):
    """struct uffdio_writeprotect"""

    _fields_ = (("range", UffdioRange), ("mode", ctypes.c_uint64))


class UffdioCopy(ctypes.Structure):
    """struct uffdio_copy"""

    _fields_ = (
        ("dst", ctypes.c_uint64),
        ("src", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("copy", ctypes.c_int64),
    )


def _ioctl(direction: int, number: int, argument: type[ctypes.Structure]) -> int:
    return direction << 30 | ctypes.sizeof(argument) << 16 | 0xAA << 8 | number


UFFDIO_API = _ioctl(3, 0x3F, UffdioApi)
UFFDIO_REGISTER = _ioctl(3, 0x00, UffdioRegister)
UFFDIO_UNREGISTER = _ioctl(2, 0x01, UffdioRange)
UFFDIO_COPY = _ioctl(3, 0x03, UffdioCopy)
UFFDIO_WRITEPROTECT = _ioctl(3, 0x06, UffdioWriteprotect)


def create() -> int:
    """A userfaultfd for this process. Raises OSError (ENOSYS, EPERM)."""
    return call(NR["userfaultfd"], OPEN_FLAGS)


def enable(fd: int) -> None:
    """The handshake that must come first, once for a descriptor: asynchronous write-protection, also of pages that are not populated.
    Raises OSError: EINVAL if the kernel has none (before Linux 6.7)."""
    fcntl.ioctl(fd, UFFDIO_API, UffdioApi(api=UFFD_API, features=UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED))


def enable_filling(fd: int) -> None:
    """The handshake, for copy(). Raises OSError."""
    fcntl.ioctl(fd, UFFDIO_API, UffdioApi(api=UFFD_API, features=0))


def register_missing(fd: int, start: int, end: int) -> None:
    """Let the pages in [start, end) that are missing be filled. Raises OSError."""
    fcntl.ioctl(fd, UFFDIO_REGISTER, UffdioRegister(range=UffdioRange(start, end - start), mode=UFFDIO_REGISTER_MODE_MISSING))


def copy(fd: int, target: int, source: int, length: int) -> int:
    """Make pages of that process, which must be missing, with content at the address `source` of ours: without a fault for each of them.
    Returns how many bytes of `length` were copied; fewer when a page is there already. Raises OSError when none was."""
    done: int = 0
    while done < length:
        argument = UffdioCopy(target + done, source + done, length - done, 0, 0)
        try:
            fcntl.ioctl(fd, UFFDIO_COPY, argument)
        except BlockingIOError:  # interrupted: what is done stands in the argument
            done += max(0, argument.copy)
            continue
        except OSError:
            if done + max(0, argument.copy) == 0:
                raise
            return int(done + max(0, argument.copy))
        done += argument.copy
    return done


def register_wp(fd: int, start: int, end: int) -> None:
    """Let the pages in [start, end) be write-protected. Raises OSError: EBUSY if another userfaultfd has them, EINVAL if they
    cannot be."""
    fcntl.ioctl(fd, UFFDIO_REGISTER, UffdioRegister(range=UffdioRange(start, end - start), mode=UFFDIO_REGISTER_MODE_WP))


def unprotect(fd: int, start: int, end: int) -> None:
    """Take the protection off the pages in [start, end), which stay registered: they count as written. Raises OSError: ENOENT if part of it is not
    registered, EAGAIN if the map is being changed."""
    fcntl.ioctl(fd, UFFDIO_WRITEPROTECT, UffdioWriteprotect(UffdioRange(start, end - start), UFFDIO_WRITEPROTECT_MODE_DONTWAKE))


def unregister(fd: int, start: int, end: int) -> None:
    """Take [start, end) out again, and the protection off its pages. Raises OSError."""
    fcntl.ioctl(fd, UFFDIO_UNREGISTER, UffdioRange(start, end - start))
