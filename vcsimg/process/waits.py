"""System calls that a stop interrupts, and that must go on as if there had been none.

Most interrupted system calls return one of the kernel's ERESTART codes, and the kernel itself restarts them when the thread
goes on. Some return EINTR at once, which is right for a signal with a handler and wrong for a mere stop (man 7 signal,
"Interruption of system calls and library functions by stop signals"). For these the result is replaced by ERESTARTNOHAND while
the thread is stopped: then the kernel decides as late as possible, EINTR if a handler is about to run, a restart otherwise, and
that decision is right even if a signal comes after we have looked.

A call that is started again waits for its whole timeout again, and a process that is held every 500 ms would never see a wait of one
second end. WaitMemory remembers such waits from one hold to the next, and ends them when their time has come. What remains:

* how long a thread had waited when it was stopped for the first time is unknown: that part of the wait is not counted;
* a wait is ended when the process is held, not in between.

So with holds at an interval I, a wait of T ends within T and T + I after the first of them.

A call that has moved a part of its data (a large blocking write to a pipe or socket, recv with MSG_WAITALL) returns that part when
it is stopped. It did so before we could look; the same happens under SIGSTOP and SIGCONT.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcsimg.kernel import pidfd, procfs
from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ERESTARTNOHAND, ORIG_RAX, R8, R10, RAX, RDI, RDX, WORD, RegisterBuffer

if TYPE_CHECKING:
    from vcsimg.process.thread import HeldThread

INTERRUPTED = WORD - errno.EINTR
RESTART = WORD - ERESTARTNOHAND

_SOCKET_READS = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4")
_SOCKET_WRITES = ("write", "writev", "sendto", "sendmsg", "sendmmsg", "connect")

RESTARTABLE = frozenset(
    NR[name]
    for name in (
        "epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait", "semop", "semtimedop", "io_getevents", "io_uring_enter",
        # On sockets with SO_RCVTIMEO or SO_SNDTIMEO (include/net/sock.h, sock_intr_errno), and on FUSE.
        *_SOCKET_READS, *_SOCKET_WRITES, "preadv", "preadv2", "pread64", "pwritev", "pwritev2", "pwrite64", "open", "openat",
    )
)  # fmt: skip
"""System calls that have done nothing when they return EINTR. Not among them: close, which has closed the descriptor."""

_SAME_WAIT_SWITCHES = 2
"""Voluntary context switches from one stop to the next of a thread that only went back to sleep: into sleep, and into the stop."""

_IORING_ENTER_EXT_ARG = 1 << 3
_IORING_ENTER_ABS_TIMER = 1 << 5

_SO_DOMAIN = 39

_TIMESPEC = struct.Struct("<qq")
_SIGSET = struct.Struct("<Q")


@dataclass
class _Wait:
    """`registers` identify it. `switches`: voluntary context switches of the thread while it was last stopped."""

    registers: bytes
    ends: float
    switches: int


class WaitMemory:
    """Waits with a timeout that were interrupted by holding their threads, of any number of processes. Pass the same object to every hold
    of a recording."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}

    def stopped(self, thread: HeldThread, memory: Callable[[], int], now: float) -> None:
        """A thread has stopped: end the wait that it is in, if its time has come. `memory` opens /proc/PID/mem when needed."""
        known = self._waits.pop(thread.tid, None)
        buffer = thread.buffer
        if buffer[RAX] != RESTART or buffer[ORIG_RAX] not in _TIMEOUTS:
            return
        try:
            switches = _switches(thread)
            registers = bytes(buffer)
            if known is not None and known.registers == registers and switches - known.switches <= _SAME_WAIT_SWITCHES:
                ends = known.ends
            else:
                seconds = _TIMEOUTS[buffer[ORIG_RAX]](_Interrupted(thread, memory))
                if seconds is None:
                    return
                ends = now + seconds
            if now < ends:
                self._waits[thread.tid] = _Wait(registers, ends, switches)
                return
            result = _RESULTS[buffer[ORIG_RAX]](_Interrupted(thread, memory))
        except (OSError, struct.error):
            return  # its arguments are nonsense: the system call itself will say so
        changed = RegisterBuffer(*buffer)
        changed[RAX] = result % WORD
        thread.store(changed)

    def going_on(self, thread: HeldThread) -> None:
        """A thread is about to go on. If what it waits for has come meanwhile, its next wait is a new one, however alike it looks."""
        known = self._waits.get(thread.tid)
        if known is None:
            return
        try:
            if _READY.get(thread.buffer[ORIG_RAX], _never)(thread):
                del self._waits[thread.tid]
            elif thread.lent:
                known.switches = _switches(thread)
        except OSError:
            del self._waits[thread.tid]


def _switches(thread: HeldThread) -> int:
    return int(procfs.status(thread.pid, thread.tid)["voluntary_ctxt_switches"])


class _Interrupted:
    """An interrupted system call of a stopped thread."""

    def __init__(self, thread: HeldThread, memory: Callable[[], int]) -> None:
        self.thread = thread
        self.memory = memory

    def argument(self, index: int) -> int:
        return int(self.thread.buffer[index])

    def timespec(self, index: int) -> float | None:
        """The relative timeout that an argument points to; None if it is NULL."""
        address = self.argument(index)
        if address == 0:
            return None
        seconds, nanoseconds = _TIMESPEC.unpack(os.pread(self.memory(), _TIMESPEC.size, address))
        return float(seconds + nanoseconds / 1e9)

    def socket_timeout(self, option: int) -> float | None:
        """SO_RCVTIMEO or SO_SNDTIMEO of the socket in the first argument; None if it has none, or is no socket."""
        seconds, microseconds = _TIMESPEC.unpack(_socket_option(self.thread, option, _TIMESPEC.size) or bytes(_TIMESPEC.size))
        return float(seconds + microseconds / 1e6) or None


@contextmanager
def _descriptor(thread: HeldThread) -> Iterator[int]:
    """A duplicate of the descriptor in the first argument."""
    process = pidfd.open(thread.pid)
    try:
        fd = pidfd.getfd(process, int(thread.buffer[RDI]) & 0xFFFFFFFF)
    finally:
        os.close(process)
    try:
        yield fd
    finally:
        os.close(fd)


def _socket_option(thread: HeldThread, option: int, size: int) -> bytes | None:
    """A SOL_SOCKET option of the socket in the first argument; None if it is no socket. Not through Python's socket class, which may
    set the socket non-blocking, for the thread too."""
    value = ctypes.create_string_buffer(size)
    length = ctypes.c_uint32(size)
    with _descriptor(thread) as fd:
        try:
            call(NR["getsockopt"], fd, socket.SOL_SOCKET, option, ctypes.addressof(value), ctypes.addressof(length))
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                return None
            raise
    return value.raw


def _milliseconds(wait: _Interrupted) -> float | None:
    value = ctypes.c_int32(wait.argument(R10)).value
    return value / 1e3 if value >= 0 else None


def _io_uring(wait: _Interrupted) -> float | None:
    flags = wait.argument(R10)
    if not flags & _IORING_ENTER_EXT_ARG or flags & _IORING_ENTER_ABS_TIMER:
        return None
    # struct io_uring_getevents_arg: sigmask, sigmask_sz, pad, ts
    address = _SIGSET.unpack(os.pread(wait.memory(), 8, wait.argument(R8) + 16))[0]
    if address == 0:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(os.pread(wait.memory(), _TIMESPEC.size, address))
    return float(seconds + nanoseconds / 1e9)


def _connect_result(wait: _Interrupted) -> int:
    """What connect returns when SO_SNDTIMEO has passed; started again, it would return EALREADY instead (net/ipv4/af_inet.c)."""
    domain = int.from_bytes(_socket_option(wait.thread, _SO_DOMAIN, 4) or b"", "little")
    return -errno.EAGAIN if domain == socket.AF_UNIX else -errno.EINPROGRESS


_TIMEOUTS: dict[int, Callable[[_Interrupted], float | None]] = {
    **{NR[name]: _milliseconds for name in ("epoll_wait", "epoll_pwait")},
    NR["epoll_pwait2"]: lambda wait: wait.timespec(R10),
    NR["rt_sigtimedwait"]: lambda wait: wait.timespec(RDX),
    NR["semtimedop"]: lambda wait: wait.timespec(R10),
    **{NR[name]: (lambda wait: wait.timespec(R8)) for name in ("io_getevents", "io_pgetevents")},
    NR["io_uring_enter"]: _io_uring,
    **{NR[name]: (lambda wait: wait.socket_timeout(socket.SO_RCVTIMEO)) for name in _SOCKET_READS},
    **{NR[name]: (lambda wait: wait.socket_timeout(socket.SO_SNDTIMEO)) for name in _SOCKET_WRITES},
}
"""Seconds after which a call ends by itself, None for never. io_pgetevents is here because it is restarted (by the kernel itself) from the
beginning, like the others."""

_RESULTS: dict[int, Callable[[_Interrupted], int]] = {
    **{NR[name]: (lambda wait: 0) for name in ("epoll_wait", "epoll_pwait", "epoll_pwait2", "io_getevents", "io_pgetevents")},
    **{
        NR[name]: (lambda wait: -errno.EAGAIN)
        for name in ("rt_sigtimedwait", "semtimedop", *_SOCKET_READS, *(name for name in _SOCKET_WRITES if name != "connect"))
    },
    NR["connect"]: _connect_result,
    NR["io_uring_enter"]: lambda wait: -errno.ETIME,
}
"""What a call returns when its time is over."""


def _never(thread: HeldThread) -> bool:
    return False


def _polled(events: int) -> Callable[[HeldThread], bool]:
    def ready(thread: HeldThread) -> bool:
        with _descriptor(thread) as fd:
            poll = select.poll()
            poll.register(fd, events)
            return bool(poll.poll(0))

    return ready


def _signal_waits(thread: HeldThread) -> bool:
    with open(f"/proc/{thread.pid}/mem", "rb", buffering=0) as memory:
        wanted = _SIGSET.unpack(os.pread(memory.fileno(), 8, thread.buffer[RDI]))[0]
    status = procfs.status(thread.pid, thread.tid)
    return bool(wanted & (int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)))


_READY: dict[int, Callable[[HeldThread], bool]] = {
    **{NR[name]: _polled(select.POLLIN) for name in ("epoll_wait", "epoll_pwait", "epoll_pwait2", *_SOCKET_READS)},
    **{NR[name]: _polled(select.POLLOUT) for name in _SOCKET_WRITES},
    NR["rt_sigtimedwait"]: _signal_waits,
}
"""Whether a call, started again now, would return at once. A semaphore or an aio ring cannot be asked this."""
