"""sock_diag(7) for TCP and UDP: connections that no process has any more, which keep others from their port; what shutdown(2) has ended. Layouts:
linux/inet_diag.h."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ENDING = sum(1 << state for state in (4, 5, 6, 9, 11))
"""FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING (net/tcp_states.h)."""
_HEADER = struct.Struct("<IHHII")
_REQUEST = struct.Struct("<BBBBI")
_ID = struct.Struct(">HH16s16sIII")
_MESSAGE_ID = 4
_INODE = 68
_SIZE = 72
"""struct inet_diag_msg; attributes follow."""
_SHUTDOWN = 8
_ATTRIBUTE = struct.Struct("<HH")


def destroy_abandoned(family: int, port: int) -> bool:
    """End TCP connections from a local port that are ending, and that no process has any more. Needs CAP_NET_ADMIN. Returns whether
    there was one."""
    found = False
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
            for identity in list(_abandoned(netlink, family, port)):
                body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + identity
                _send(netlink, _SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, body)
                _check(netlink.recv(1 << 16))
                found = True
    except OSError:
        return False
    return found


def shut_down(family: int) -> dict[int, int]:
    """By inode, what shutdown(2) has ended of UDP sockets: 1 receiving, 2 sending, 3 both. Of the others nothing is said. Raises OSError where the
    kernel does not tell (CONFIG_INET_UDP_DIAG)."""
    found = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        for message in _dump(netlink, family, socket.IPPROTO_UDP, 0xFFFFFFFF):
            position = _SIZE
            while position + _ATTRIBUTE.size < len(message):
                length, kind = _ATTRIBUTE.unpack_from(message, position)
                if kind == _SHUTDOWN and message[position + _ATTRIBUTE.size]:
                    found[struct.unpack_from("<I", message, _INODE)[0]] = message[position + _ATTRIBUTE.size]
                position += max((length + 3) & -4, _ATTRIBUTE.size)
    return found


def _abandoned(netlink: socket.socket, family: int, port: int) -> Iterator[bytes]:
    """struct inet_diag_sockid of each."""
    for message in _dump(netlink, family, socket.IPPROTO_TCP, _ENDING):
        identity = message[_MESSAGE_ID : _MESSAGE_ID + _ID.size]
        (inode,) = struct.unpack_from("<I", message, _INODE)
        if inode == 0 and _ID.unpack(identity)[0] == port:
            yield identity


def _dump(netlink: socket.socket, family: int, protocol: int, states: int) -> Iterator[bytes]:
    """struct inet_diag_msg, with attributes, of each socket in one of the states."""
    body = _REQUEST.pack(family, protocol, 0, 0, states) + bytes(_ID.size)
    _send(netlink, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, body)
    while True:
        data = netlink.recv(1 << 18)
        position = 0
        while position < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, position)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                (error,) = struct.unpack_from("<i", data, position + _HEADER.size)
                raise OSError(-error, os.strerror(-error))
            yield data[position + _HEADER.size : position + length]
            position += (length + 3) & -4


def _send(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)


def _check(answer: bytes) -> None:
    (error,) = struct.unpack_from("<i", answer, _HEADER.size)
    if error and -error != errno.ENOENT:
        raise OSError(-error, os.strerror(-error))
