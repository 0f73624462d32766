"""ptrace(2) beyond what python-ptrace wraps, and cheap enough to be called for a thousand threads within milliseconds.

The C library and the request numbers come from python-ptrace's binding; its functions are not used on the hot path, because
they format a message and raise for errors that are ordinary here (ESRCH says "not stopped yet"). `request` returns
a negative errno instead.

All requests for one traced thread must come from the one OS thread that seized it: for any other, the kernel answers ESRCH.
Unless said otherwise the traced thread must be stopped.
"""

from __future__ import annotations

import ctypes
import errno
import os

from ptrace.binding.func import (
    PTRACE_CONT,
    PTRACE_DETACH,
    PTRACE_GETREGS,
    PTRACE_GETSIGINFO,
    PTRACE_O_TRACEEXEC,
    PTRACE_O_TRACESYSGOOD,
    PTRACE_SETOPTIONS,
    PTRACE_SETREGS,
    PTRACE_SYSCALL,
)
from ptrace.ctypes_libc import libc

__all__ = [
    "PTRACE_CONT",
    "PTRACE_DETACH",
    "PTRACE_GETREGS",
    "PTRACE_GETSIGINFO",
    "PTRACE_O_TRACEEXEC",
    "PTRACE_O_TRACESYSGOOD",
    "PTRACE_SETOPTIONS",
    "PTRACE_SETREGS",
    "PTRACE_SYSCALL",
]

# linux/ptrace.h and asm/ptrace-abi.h, what python-ptrace 0.9.9 lacks
PTRACE_SYSEMU = 31
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_SYSCALL_INFO = 0x420E
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210

PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_STOP = 128
PTRACE_O_EXITKILL = 0x100000
PTRACE_PEEKSIGINFO_SHARED = 1

NT_X86_XSTATE = 0x202

SIGINFO_SIZE = 128
_SIGMASK_SIZE = 8
_PEEK_BATCH = 32

request = libc["ptrace"]
"""request(number, tid, address, data) -> int, as the C function; -1 and ctypes.get_errno() for an error."""
request.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
request.restype = ctypes.c_long


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _PeekSiginfoArgs(ctypes.Structure):
    """struct ptrace_peeksiginfo_args"""

    _fields_ = (("off", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("nr", ctypes.c_int32))


class RseqConfiguration(ctypes.Structure):
    """struct ptrace_rseq_configuration: where a thread's struct rseq is; `rseq_abi_pointer` 0 if it has registered none."""

    _fields_ = (
        ("rseq_abi_pointer", ctypes.c_uint64),
        ("rseq_abi_size", ctypes.c_uint32),
        ("signature", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class SyscallUserDispatch(ctypes.Structure):
    """struct ptrace_sud_config"""

    _fields_ = (
        ("mode", ctypes.c_uint64),
        ("selector", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
    )


def call(number: int, tid: int, address: int = 0, data: object = 0) -> int:
    """One request. Raises OSError, with ESRCH also when the thread is not stopped, or not traced by this OS thread."""
    result: int = request(number, tid, address, data)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def siginfo(tid: int) -> bytes:
    """siginfo_t of the signal, or stop, that the thread stopped for. Raises OSError; EINVAL in a group-stop by PTRACE_ATTACH."""
    buffer = ctypes.create_string_buffer(SIGINFO_SIZE)
    call(PTRACE_GETSIGINFO, tid, 0, buffer)
    return buffer.raw


def pending(tid: int, *, shared: bool) -> list[bytes]:
    """siginfo_t of every queued signal, in order: the thread's own, or those of the process. Raises OSError."""
    found: list[bytes] = []
    buffer = ctypes.create_string_buffer(SIGINFO_SIZE * _PEEK_BATCH)
    while True:
        args = _PeekSiginfoArgs(len(found), PTRACE_PEEKSIGINFO_SHARED if shared else 0, _PEEK_BATCH)
        count = call(PTRACE_PEEKSIGINFO, tid, ctypes.addressof(args), buffer)
        found += (buffer.raw[at : at + SIGINFO_SIZE] for at in range(0, count * SIGINFO_SIZE, SIGINFO_SIZE))
        if count < _PEEK_BATCH:
            return found


def signal_mask(tid: int) -> int:
    """The blocked signals: bit n-1 for signal n. Of a thread inside sigsuspend and the like, the mask that it goes back to."""
    mask = ctypes.c_uint64()
    call(PTRACE_GETSIGMASK, tid, _SIGMASK_SIZE, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Raises OSError. A thread inside sigsuspend, ppoll, … forgets its temporary mask; the call sets it again when restarted."""
    call(PTRACE_SETSIGMASK, tid, _SIGMASK_SIZE, ctypes.addressof(ctypes.c_uint64(mask)))


_xstate_size = 1 << 14
"""More than any processor has, until the first answer tells."""


def xstate(tid: int) -> bytes:
    """The XSAVE area in the standard (not compacted) format, as large as the kernel gives it. Raises OSError."""
    global _xstate_size
    buffer = ctypes.create_string_buffer(_xstate_size)
    vector = _IoVector(ctypes.addressof(buffer), _xstate_size)
    call(PTRACE_GETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(vector))
    _xstate_size = int(vector.length)
    return buffer.raw[:_xstate_size]


def set_xstate(tid: int, area: bytes) -> None:
    """Set the XSAVE area; its size must be the one that xstate() has. Raises OSError (EFAULT, EINVAL: not a valid area)."""
    buffer = ctypes.create_string_buffer(area, len(area))
    vector = _IoVector(ctypes.addressof(buffer), len(area))
    call(PTRACE_SETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(vector))


def rseq_configuration(tid: int) -> RseqConfiguration | None:
    """Where the thread's struct rseq is; None if it has none, or the kernel cannot tell (before 5.13, or without CONFIG_RSEQ)."""
    found = RseqConfiguration()
    if request(PTRACE_GET_RSEQ_CONFIGURATION, tid, ctypes.sizeof(found), ctypes.addressof(found)) == -1:
        error = ctypes.get_errno()
        if error in (errno.EIO, errno.EINVAL):
            return None
        raise OSError(error, os.strerror(error))
    return found if found.rseq_abi_pointer else None


def set_syscall_dispatch(tid: int, wanted: SyscallUserDispatch) -> None:
    """Have the thread's system calls turned into signals. Raises OSError."""
    call(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, tid, ctypes.sizeof(wanted), ctypes.addressof(wanted))


def dispatches_syscalls(tid: int) -> bool:
    """Whether the thread has system calls turned into signals (prctl PR_SET_SYSCALL_USER_DISPATCH). Raises OSError."""
    found = SyscallUserDispatch()
    size = ctypes.sizeof(found)
    if request(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, ctypes.addressof(found)) == -1:
        error = ctypes.get_errno()
        if error in (errno.EIO, errno.EINVAL):
            return False  # before Linux 6.4 a tracer cannot ask
        raise OSError(error, os.strerror(error))
    return bool(found.mode)
