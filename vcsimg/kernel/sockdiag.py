"""sock_diag(7) for unix sockets: what no system call on the socket itself tells. Layouts: linux/unix_diag.h, linux/sock_diag.h.

Answers for the network namespace in which the netlink socket was made.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ALL_STATES = 0xFFFFFFFF
_SHOW = 0x02 | 0x04 | 0x08 | 0x10  # VFS, PEER, ICONS, RQLEN
_VFS, _PEER, _ICONS, _RQLEN, _SHUTDOWN = 1, 2, 3, 4, 6

_HEADER = struct.Struct("<IHHII")
_REQUEST = struct.Struct("<BBHIIIII")
_MESSAGE = struct.Struct("<BBBBIII")
_ATTRIBUTE = struct.Struct("<HH")
_ANY_COOKIE = 0xFFFFFFFF
_LOOKUP, _PASSED = 4, 256
"""To look one up takes as long as four of a list of all, and one more for so many sockets: the kernel goes through them."""
_SEQUENCES = 1 << 31
_AT_ONCE = 64
"""Requests; their answers have room in a netlink socket that nobody has made larger."""


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """`state`: 1 established, 7 close, 10 listen. `peer`: inode of the connected socket. `bound`: device (the kernel's own encoding) and
    inode of the file that it is bound to. `waiting`: for a listening socket, inodes of connecting ones that were not accepted yet.
    `backlog`: of a listening socket. `shutdown`: 1 receiving, 2 sending."""

    state: int
    peer: int | None
    bound: tuple[int, int] | None
    waiting: tuple[int, ...]
    backlog: int
    shutdown: int


class UnixDiag:
    """A netlink socket to ask with."""

    ARGUMENTS = (socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    """For socket(2), when another process makes the netlink socket."""

    def __init__(self, fd: int | None = None) -> None:
        """`fd`: a netlink socket, which belongs to this object from now on; None: one in our own network namespace. Raises OSError where
        the kernel has no sock_diag."""
        self._socket = socket.socket(*self.ARGUMENTS) if fd is None else socket.socket(fileno=fd)
        self._answer = bytearray(1 << 16)
        self._first = 0

    def __del__(self) -> None:
        self._socket.close()

    def ask(self, inode: int) -> UnixSocket:
        """A unix socket by its inode. Raises OSError; ENOENT when there is none in this network namespace."""
        (found,) = self.ask_all([inode])
        if isinstance(found, OSError):
            raise found
        return found

    def ask_all(self, inodes: Sequence[int], all_sockets: int = 0) -> list[UnixSocket | OSError]:
        """Many unix sockets by their inodes, in few steps; an error in the place of one that there is not. `all_sockets`: how many there are in the
        network namespace, if known. Raises OSError."""
        found: dict[int, UnixSocket | OSError] = {}
        if len(inodes) * (_LOOKUP + all_sockets // _PASSED) > all_sockets > 0:
            listed = self._dump(set(inodes))
            found = {number: listed[inode] for number, inode in enumerate(inodes) if inode in listed}
        at_once = _AT_ONCE
        while pending := [number for number in range(len(inodes)) if number not in found][:at_once]:
            self._first = (self._first + len(inodes)) % _SEQUENCES
            self._socket.send(b"".join(_request(inodes[number], self._first + number) for number in pending))
            answers = {number - self._first: answer for number, answer in self._answers(len(pending))}
            if not answers and at_once == 1:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            # The kernel drops answers that have no room in the netlink socket.
            at_once = _AT_ONCE if len(answers) == len(pending) else 1
            found.update(answers)
        return [found[number] for number in range(len(inodes))]

    def _dump(self, inodes: Collection[int]) -> dict[int, UnixSocket]:
        """Unix sockets by their inodes, out of a list of all; where others come or go meanwhile, some may be missing."""
        self._first = (self._first + 1) % _SEQUENCES
        self._socket.send(_request(0, self._first, _NLM_F_DUMP))
        found: dict[int, UnixSocket] = {}
        while True:
            size = self._receive(0)
            place = 0
            while place < size:
                length, kind, _, number, _ = _HEADER.unpack_from(self._answer, place)
                if number == self._first and kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return found
                inode = _MESSAGE.unpack_from(self._answer, place + _HEADER.size)[4]
                if number == self._first and inode in inodes:
                    found[inode] = _parse(bytes(self._answer[place + _HEADER.size : place + length]))
                place += (length + 3) & -4

    def _receive(self, flags: int) -> int:
        """The size of what came next. Raises OSError, but not that some were dropped before."""
        while True:
            try:
                return self._socket.recv_into(self._answer, flags=flags)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _answers(self, count: int) -> Iterator[tuple[int, UnixSocket | OSError]]:
        """At most `count` answers, with the numbers of their requests: they are there when send() returns."""
        while count:
            try:
                size = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            count -= 1
            _, kind, _, number, _ = _HEADER.unpack_from(self._answer)
            if kind != _NLMSG_ERROR:
                yield number, _parse(bytes(self._answer[_HEADER.size : size]))
                continue
            (code,) = struct.unpack_from("<i", self._answer, _HEADER.size)
            if code != -errno.EAGAIN:
                yield number, OSError(-code, os.strerror(-code))


def _request(inode: int, number: int, flags: int = 0) -> bytes:
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, inode, _SHOW, _ANY_COOKIE, _ANY_COOKIE)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, number, 0) + body


def _parse(message: bytes) -> UnixSocket:
    _, _, state, _, _, _, _ = _MESSAGE.unpack_from(message)
    attributes: dict[int, bytes] = {}
    position = _MESSAGE.size
    while position < len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, position)
        attributes[kind] = message[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & -4
    bound = struct.unpack("<II", attributes[_VFS]) if _VFS in attributes else None
    icons = attributes.get(_ICONS, b"")
    return UnixSocket(
        state=state,
        peer=struct.unpack("<I", attributes[_PEER])[0] if _PEER in attributes else None,
        bound=(bound[1], bound[0]) if bound else None,
        waiting=struct.unpack(f"<{len(icons) // 4}I", icons),
        backlog=struct.unpack("<II", attributes[_RQLEN])[1] if _RQLEN in attributes else 0,
        shutdown=attributes[_SHUTDOWN][0] if _SHUTDOWN in attributes else 0,
    )
