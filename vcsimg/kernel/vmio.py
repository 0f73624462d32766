"""process_vm_readv(2) and process_vm_writev(2): bytes between two address spaces with one copy.

Linux 3.2, CONFIG_CROSS_MEMORY_ATTACH. They honour page protection, need the right to ptrace the process, and do not need it to be
stopped. A transfer that meets memory it cannot use stops there, at the page, and returns how much it moved
(mm/process_vm_access.c, process_vm_rw_core()); it fails only when that is nothing.
"""

from __future__ import annotations

import ctypes
import os

IOV_MAX = 1024
"""How many ranges one call takes (UIO_MAXIOV)."""

_libc = ctypes.CDLL(None, use_errno=True)
_ARGUMENTS = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)

_readv = _libc.process_vm_readv
_readv.argtypes = _ARGUMENTS
_readv.restype = ctypes.c_ssize_t

_writev = _libc.process_vm_writev
_writev.argtypes = _ARGUMENTS
_writev.restype = ctypes.c_ssize_t


def process_vm_readv(pid: int, local: int, local_count: int, remote: int, remote_count: int) -> int:
    """Bytes moved from the process to us. `local` and `remote` are the addresses, in our memory, of arrays of struct iovec.

    Raises OSError: ESRCH (no such process, or it has no memory any more), EPERM, EFAULT (not one byte could be read), ENOSYS.
    """
    moved: int = _readv(pid, local, local_count, remote, remote_count, 0)
    if moved < 0:
        raise _error()
    return moved


def process_vm_writev(pid: int, local: int, local_count: int, remote: int, remote_count: int) -> int:
    """Bytes moved from us to the process; otherwise as process_vm_readv()."""
    moved: int = _writev(pid, local, local_count, remote, remote_count, 0)
    if moved < 0:
        raise _error()
    return moved


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
