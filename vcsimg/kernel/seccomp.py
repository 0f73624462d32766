"""Seccomp filters of a traced thread: PTRACE_SECCOMP_GET_FILTER and PTRACE_SECCOMP_GET_METADATA of ptrace(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from vcsimg.kernel import ptrace

_GET_FILTER = 0x420C
_GET_METADATA = 0x420D
INSTRUCTION_SIZE = 8
MODE_STRICT = 1
SET_MODE_STRICT, SET_MODE_FILTER = 0, 1
FILTER_FLAG_LOG, FILTER_FLAG_SPEC_ALLOW = 2, 4
PTRACE_O_SUSPEND_SECCOMP = 1 << 21
"""Linux 4.3, with CONFIG_CHECKPOINT_RESTORE; the tracer needs CAP_SYS_ADMIN."""
_METADATA = struct.Struct("<QQ")


def filters(tid: int) -> list[tuple[int, bytes]]:
    """For each filter, the oldest first: SECCOMP_FILTER_FLAG_* bits and struct sock_filter[]. The thread must be stopped.

    Raises OSError; EACCES or EPERM when vcsimg lacks CAP_SYS_ADMIN or is under a filter itself.
    """
    found: list[tuple[int, bytes]] = []
    while True:
        count = ptrace.request(_GET_FILTER, tid, len(found), None)
        if count == -1:
            error = ctypes.get_errno()
            if error == errno.ENOENT:
                return found
            raise OSError(error, os.strerror(error))
        code = ctypes.create_string_buffer(count * INSTRUCTION_SIZE)
        ptrace.call(_GET_FILTER, tid, len(found), ctypes.addressof(code))
        metadata = ctypes.create_string_buffer(_METADATA.pack(len(found), 0), _METADATA.size)
        ptrace.call(_GET_METADATA, tid, _METADATA.size, ctypes.addressof(metadata))
        found.append((_METADATA.unpack(metadata.raw)[1], code.raw))
