"""Calls that the stop cut short.

A thread that waits in the middle of a write to a pipe or socket, having written a part, returns that part when anything interrupts it, a stop as
well as a signal: the kernel does not start such a call again (fs/pipe.c, pipe_write; net/unix/af_unix.c, unix_stream_sendmsg). The program finds a
smaller count than it asked for, which a blocking descriptor gives otherwise only after signals. The same is so of a receive with MSG_WAITALL.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vcsimg.image.sections.files import Duplicate, File
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Section
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import signed

_CALLS: Mapping[int, tuple[str, str, str]] = {
    NR["write"]: ("write to", "rdi", "rdx"),
    NR["writev"]: ("writev to", "rdi", ""),
    NR["sendto"]: ("send to", "rdi", "rdx"),
    NR["sendmsg"]: ("sendmsg to", "rdi", ""),
    NR["sendfile"]: ("sendfile to", "rdi", "r10"),
    NR["vmsplice"]: ("vmsplice to", "rdi", ""),
    NR["recvfrom"]: ("recv with MSG_WAITALL from", "rdi", "rdx"),
    NR["recvmsg"]: ("recvmsg with MSG_WAITALL from", "rdi", ""),
    NR["sendmmsg"]: ("sendmmsg to", "rdi", "rdx"),
    NR["recvmmsg"]: ("recvmmsg from", "rdi", "rdx"),
}
"""What it does, and the registers with descriptor and count; without a count, it is that of a vector."""
_FLAGS: Mapping[int, str] = {
    NR["sendto"]: "r10", NR["sendmsg"]: "rdx", NR["recvfrom"]: "r10", NR["recvmsg"]: "rdx", NR["sendmmsg"]: "r10", NR["recvmmsg"]: "r10",
}  # fmt: skip
_RECEIVES = frozenset((NR["recvfrom"], NR["recvmsg"]))
_MESSAGES = frozenset((NR["sendmsg"], NR["recvmsg"]))
_OF_MANY = frozenset((NR["sendmmsg"], NR["recvmmsg"]))
_MSG_DONTWAIT, _MSG_WAITALL, _MSG_WAITFORONE = 0x40, 0x100, 0x10000
_VECTOR = struct.Struct("<QQ")
_VECTOR_IN_MESSAGE = 16
_MOST = 1024
"""IOV_MAX."""


@dataclass(frozen=True, slots=True)
class Cut:
    """`done` of `wanted` bytes, or what `unit` says."""

    what: str
    fd: int
    done: int
    wanted: int
    unit: str

    def reason(self) -> str:
        return f"the stop cut it short: it has returned {self.done} of {self.wanted} {self.unit}, as after a signal"

    def concerns(self, files: Section) -> bool:
        """Whether it was by the stop that it returned early: from a pipe, socket or terminal that waits (no O_NONBLOCK)."""
        fd = next((other.of for other in select(files, Duplicate) if other.fd == self.fd), self.fd)
        for file in select((record for record in files if record.kind == File.kind and record.get("fd") == str(fd)), File):
            return file.type in ("pipe", "fifo", "socket", "character") and not file.flags & os.O_NONBLOCK
        return False


def cut_short(registers: Mapping[str, int], memory: int) -> Cut | None:
    """The call that a stopped thread is about to return from with less than it was asked for. `memory`: /proc/PID/mem."""
    number = registers["orig_rax"]
    if number not in _CALLS or (done := signed(registers["rax"])) <= 0:
        return None
    flags = registers[_FLAGS[number]] if number in _FLAGS else 0
    if flags & (_MSG_DONTWAIT | _MSG_WAITFORONE) or (number in _RECEIVES and not flags & _MSG_WAITALL):
        return None
    what, fd, count = _CALLS[number]
    try:
        wanted = registers[count] if count else _size_of_vector(registers, memory, number)
    except OSError:
        return None
    unit = "messages" if number in _OF_MANY else "bytes"
    return Cut(what, registers[fd] & 0xFFFFFFFF, done, wanted, unit) if wanted > done else None


def _size_of_vector(registers: Mapping[str, int], memory: int, number: int) -> int:
    at, count = registers["rsi"], registers["rdx"]
    if number in _MESSAGES:
        at, count = _VECTOR.unpack(_read(memory, at + _VECTOR_IN_MESSAGE, _VECTOR.size))
    return sum(size for _, size in _VECTOR.iter_unpack(_read(memory, at, min(count, _MOST) * _VECTOR.size)))


def _read(memory: int, address: int, size: int) -> bytes:
    try:
        data = os.pread(memory, size, address)
    except OverflowError:
        data = b""
    if len(data) != size:
        raise OSError
    return data
