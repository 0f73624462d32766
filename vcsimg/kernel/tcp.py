"""TCP connections: tcp(7), linux/tcp.h. TCP_REPAIR, which shows a connection's inner state, needs CAP_NET_ADMIN."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from typing import NamedTuple

from vcsimg.kernel.sockets import Handle

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 24, 29
_REPAIR_ON, _REPAIR_OFF_NO_PROBE = 1, -1
_NO_QUEUE, _RECV_QUEUE, _SEND_QUEUE = 0, 1, 2
_TIMESTAMPS, _IN_MICROSECONDS = 1, 64  # TCPI_OPT_TIMESTAMPS, TCPI_OPT_USEC_TS
_WINDOW_SIZE = 20
_SIOCOUTQNSD = 0x894B
_INFO_SIZE = 104


class Connection(NamedTuple):
    """See `Tcp` in image/sections/sockets.py."""

    send_sequence: int
    receive_sequence: int
    sending: bytes
    unsent: int
    options: int
    mss: int
    send_scale: int
    receive_scale: int
    timestamp: int | None
    window: bytes | None


def state(handle: Handle) -> int | None:
    """The state, by the numbers of net/tcp_states.h. None when it is not TCP."""
    try:
        return handle.octets(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return None


def accept_queue(handle: Handle) -> tuple[int, int]:
    """Of a listening socket: connections that were not accepted yet, and how many there may be. Raises OSError."""
    waiting, backlog = struct.unpack_from("<II", handle.octets(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE), 24)
    return waiting, backlog


def connection(handle: Handle) -> Connection:
    """The inner state of an established connection. Raises OSError; PermissionError without CAP_NET_ADMIN in its network namespace.

    Leaving repair mode clears SO_REUSEADDR (net/ipv4/tcp.c, tcp_repair_set), so that is put back. While the mode is on, nothing is
    sent; no probe is sent when it ends.
    """
    reuse = handle.number(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    info = handle.octets(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    handle.set(socket.IPPROTO_TCP, _REPAIR, _REPAIR_ON)
    try:
        receive_sequence = _sequence(handle, _RECV_QUEUE)
        send_sequence = _sequence(handle, _SEND_QUEUE)
        size, unsent = _queued(handle, termios.TIOCOUTQ), _queued(handle, _SIOCOUTQNSD)
        sending = handle.peek(size) if size else b""
        options = info[5]
        return Connection(
            send_sequence=send_sequence,
            receive_sequence=receive_sequence,
            sending=sending,
            unsent=unsent,
            options=options,
            mss=handle.number(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
            send_scale=info[6] & 0xF,
            receive_scale=info[6] >> 4,
            timestamp=_timestamp_offset(handle) if options & (_TIMESTAMPS | _IN_MICROSECONDS) == _TIMESTAMPS else None,
            window=_window(handle),
        )
    finally:
        handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, _NO_QUEUE)
        handle.set(socket.IPPROTO_TCP, _REPAIR, _REPAIR_OFF_NO_PROBE)
        handle.set(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)


def _sequence(handle: Handle, queue: int) -> int:
    handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
    return handle.number(socket.IPPROTO_TCP, _QUEUE_SEQ) & 0xFFFFFFFF


def _queued(handle: Handle, request: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(handle, request, bytes(4)))[0]
    return count


def _window(handle: Handle) -> bytes | None:
    try:
        return handle.octets(socket.IPPROTO_TCP, _REPAIR_WINDOW, _WINDOW_SIZE)
    except OSError:
        return None


def _timestamp_offset(handle: Handle) -> int:
    """How far the connection's timestamps are ahead of CLOCK_MONOTONIC in milliseconds: unlike the timestamps, it stays the same.

    One too small, sometimes: since Linux 6.7 the kernel clears bit 0 of what it answers (do_tcp_getsockopt).
    """
    while True:
        before = time.monotonic_ns() // 1_000_000
        now = handle.number(socket.IPPROTO_TCP, _TIMESTAMP) & 0xFFFFFFFF
        if time.monotonic_ns() // 1_000_000 == before:
            return (now - before) & 0xFFFFFFFF
