"""sock_diag(7) for unix sockets: what no system call on the socket itself tells. Layouts: linux/unix_diag.h, linux/sock_diag.h.

Answers for the network namespace in which the netlink socket was made.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ALL_STATES = 0xFFFFFFFF
_SHOW = 0x02 | 0x04 | 0x08 | 0x10  # VFS, PEER, ICONS, RQLEN
_VFS, _PEER, _ICONS, _RQLEN, _SHUTDOWN = 1, 2, 3, 4, 6

_HEADER = struct.Struct("<IHHII")
_REQUEST = struct.Struct("<BBHIIIII")
_MESSAGE = struct.Struct("<BBBBIII")
_ATTRIBUTE = struct.Struct("<HH")
_ANY_COOKIE = 0xFFFFFFFF


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

    def __del__(self) -> None:
        self._socket.close()

    def ask(self, inode: int) -> UnixSocket:
        """A unix socket by its inode. Raises OSError; ENOENT when there is none in this network namespace."""
        body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, inode, _SHOW, _ANY_COOKIE, _ANY_COOKIE)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + body)
        answer = self._socket.recv(1 << 16)
        length, kind, _, _, _ = _HEADER.unpack_from(answer)
        if kind == _NLMSG_ERROR:
            (error,) = struct.unpack_from("<i", answer, _HEADER.size)
            raise OSError(-error, os.strerror(-error))
        return _parse(answer[_HEADER.size : length])


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
