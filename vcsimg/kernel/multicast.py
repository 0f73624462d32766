"""Multicast groups that a socket has joined: ip(7), ipv6(7), linux/in.h (RFC 3678).

No system call lists them, but one tells the sources that a socket takes from a group, and fails if it is no member; and /proc lists the groups that
any socket of a network namespace has joined.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from vcsimg.kernel import procfs
from vcsimg.kernel.calls import call
from vcsimg.kernel.sockets import Handle
from vcsimg.kernel.syscalls import NR

_JOIN_GROUP, _BLOCK_SOURCE, _JOIN_SOURCE_GROUP, _MSFILTER = 42, 43, 46, 48
_EXCLUDE = 0
_ADDRESS_SIZE = 128  # struct sockaddr_storage
_FILTER = struct.Struct(f"<I4x{_ADDRESS_SIZE}sII")  # struct group_filter, without sources
_MOST_SOURCES = 128
_LEVELS: dict[int, int] = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}


class Group(NamedTuple):
    """A group on an interface. `address` as inet_ntop(3) writes it."""

    family: int
    number: int
    interface: str
    address: str


class Membership(NamedTuple):
    """`exclude`: messages come from all but `sources`; else from these only."""

    group: Group
    exclude: bool
    sources: tuple[str, ...]


def groups(pid: int) -> list[Group]:
    """All that somebody has joined in the network namespace of a process."""
    found = []
    index, interface = 0, ""
    for line in _lines(pid, "net/igmp")[1:]:
        words = line.split()
        if not line[:1].isspace():
            index, interface = int(words[0]), words[1].rstrip(":")
        else:
            address = int(words[0], 16).to_bytes(4, "little")
            found.append(Group(socket.AF_INET, index, interface, socket.inet_ntop(socket.AF_INET, address)))
    for line in _lines(pid, "net/igmp6"):
        number, name, text, *_ = line.split()
        found.append(Group(socket.AF_INET6, int(number), name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(text))))
    return found


def _lines(pid: int, name: str) -> list[str]:
    try:
        return procfs.read(pid, name).decode().splitlines()
    except OSError:
        return []  # a kernel without multicast, or without IPv6


def memberships(handle: Handle, candidates: Sequence[Group]) -> list[Membership]:
    """Those of the groups that a socket has joined. Raises OSError."""
    return [found for group in candidates if (found := _membership(handle, group)) is not None]


def _membership(handle: Handle, group: Group) -> Membership | None:
    if group.family == socket.AF_INET6 != handle.family:
        return None
    asked = _FILTER.pack(group.number, _sockaddr(group.family, group.address), 0, _MOST_SOURCES)
    buffer = ctypes.create_string_buffer(asked, _FILTER.size + _MOST_SOURCES * _ADDRESS_SIZE)
    length = ctypes.c_uint32(len(buffer))
    try:
        arguments = (_LEVELS[group.family], _MSFILTER, ctypes.addressof(buffer), ctypes.addressof(length))
        call(NR["getsockopt"], handle.fd, *arguments)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EINVAL, errno.ENOPROTOOPT):
            return None
        raise
    _, _, mode, count = _FILTER.unpack_from(buffer.raw)
    places = range(_FILTER.size, _FILTER.size + min(count, _MOST_SOURCES) * _ADDRESS_SIZE, _ADDRESS_SIZE)
    return Membership(group, mode == _EXCLUDE, tuple(_text(buffer.raw[at : at + _ADDRESS_SIZE]) for at in places))


def join(handle: Handle, membership: Membership) -> None:
    """Raises OSError."""
    group = membership.group
    level = _LEVELS[group.family]
    request = struct.pack("<I4x", group.number) + _sockaddr(group.family, group.address)
    if membership.exclude:
        handle.set_octets(level, _JOIN_GROUP, request)
    for source in membership.sources:
        option = _BLOCK_SOURCE if membership.exclude else _JOIN_SOURCE_GROUP
        handle.set_octets(level, option, request + _sockaddr(group.family, source))


def _sockaddr(family: int, address: str) -> bytes:
    raw = socket.inet_pton(family, address)
    return (struct.pack("<HH", family, 0) + (b"" if family == socket.AF_INET else bytes(4)) + raw).ljust(_ADDRESS_SIZE, b"\0")


def _text(raw: bytes) -> str:
    (family,) = struct.unpack_from("<H", raw)
    return socket.inet_ntop(family, raw[8:24] if family == socket.AF_INET6 else raw[4:8])
