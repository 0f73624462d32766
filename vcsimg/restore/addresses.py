"""bind(2), connect(2), listen(2) and options with what an image says, as bytes."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vcsimg.errors import HostileImage
from vcsimg.image.sections import sockets as items
from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_LONGEST = 4096


def _address(raw: bytes) -> ctypes.Array[ctypes.c_char]:
    if not 2 <= len(raw) <= _LONGEST:
        raise HostileImage("socket", f"an address of {len(raw)} bytes")
    return ctypes.create_string_buffer(raw, len(raw))


def bind(fd: int, raw: bytes) -> None:
    """Raises OSError, HostileImage."""
    address = _address(raw)
    call(NR["bind"], fd, ctypes.addressof(address), len(raw))


def connect(fd: int, raw: bytes) -> None:
    """Raises OSError, HostileImage."""
    address = _address(raw)
    call(NR["connect"], fd, ctypes.addressof(address), len(raw))


def accept(fd: int) -> int:
    """Raises OSError."""
    return call(NR["accept4"], fd, 0, 0, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


def listen(fd: int, backlog: int | None) -> None:
    """Raises OSError."""
    call(NR["listen"], fd, backlog if backlog is not None else socket.SOMAXCONN)


def number_of(fd: int, level: int, number: int) -> int:
    """An option that is an int. Raises OSError."""
    value, length = ctypes.c_int32(), ctypes.c_uint32(4)
    call(NR["getsockopt"], fd, level, number, ctypes.addressof(value), ctypes.addressof(length))
    return value.value


def octets_of(fd: int, level: int, number: int, size: int) -> bytes:
    """Up to `size` bytes. Raises OSError."""
    value, length = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
    call(NR["getsockopt"], fd, level, number, ctypes.addressof(value), ctypes.addressof(length))
    return value.raw[: length.value]


def set_number(fd: int, level: int, number: int, value: int) -> None:
    """Raises OSError."""
    word = ctypes.c_int32(value)
    call(NR["setsockopt"], fd, level, number, ctypes.addressof(word), 4)


def set_octets(fd: int, level: int, number: int, value: bytes) -> None:
    """Raises OSError."""
    buffer = ctypes.create_string_buffer(value, len(value))
    call(NR["setsockopt"], fd, level, number, ctypes.addressof(buffer), len(value))


def endpoint(raw: bytes) -> bytes:
    """Address and port of a struct sockaddr of the internet families; ::ffff:a.b.c.d is the same as a.b.c.d (ipv6(7))."""
    host = raw[8:24] if int.from_bytes(raw[:2], "little") == socket.AF_INET6 else bytes(10) + b"\xff\xff" + raw[4:8]
    return host + raw[2:4]


def port_of(raw: bytes) -> int:
    return int.from_bytes(raw[2:4], "big")


def path_of(raw: bytes) -> str | None:
    """The path of a unix socket's address; None: an abstract name."""
    return os.fsdecode(raw[2:].partition(b"\0")[0]) if raw[2:3] != b"\0" else None


def is_bound(found: items.Socket) -> bool:
    raw = found.local_raw or b""
    return len(raw) > 2 if found.family == socket.AF_UNIX else bool(raw) and bool(port_of(raw))


@contextmanager
def inside(folder: str) -> Iterator[None]:
    """With this current directory: the path of a unix socket's address is short, and kept as it is given. Raises OSError."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
