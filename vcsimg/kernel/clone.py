"""clone3(2): a new process or thread with a chosen id (set_tid, Linux 5.5)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from vcsimg.kernel.syscalls import NR

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]
"""Called with the interpreter's lock held: in the child no other thread is there to give it back."""

CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_SIGHAND = 0x800
CLONE_PARENT = 0x8000
CLONE_THREAD = 0x10000
CLONE_NEWNS = 0x20000
CLONE_SYSVSEM = 0x40000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

CLONE_PTHREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
"""What pthread_create(3) shares between threads."""

ARGS = struct.Struct("<11Q")
"""struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup."""


def clone_args(flags: int, exit_signal: int, set_tid: int = 0, count: int = 0) -> bytes:
    """struct clone_args; `set_tid`: address of `count` ids (pid_t, 4 bytes each), the innermost pid namespace first."""
    return ARGS.pack(flags, 0, 0, 0, exit_signal, 0, 0, 0, set_tid, count, 0)


def clone(flags: int, exit_signal: int, ids: Sequence[int] = ()) -> int:
    """fork(2) of this process with flags of clone(2): 0 in the child, else its id. Raises OSError (EEXIST: the id is in use)."""
    tids = (ctypes.c_int32 * max(1, len(ids)))(*ids)
    args = ctypes.create_string_buffer(clone_args(flags, exit_signal, ctypes.addressof(tids) if ids else 0, len(ids)), ARGS.size)
    result: int = _syscall(NR["clone3"], ctypes.addressof(args), ARGS.size)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
