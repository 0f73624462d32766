"""TCP connections: tcp(7), linux/tcp.h. TCP_REPAIR, which shows a connection's inner state, needs CAP_NET_ADMIN."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Iterable
from typing import NamedTuple

from vcsimg.kernel.sockets import Handle

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
_REPAIR_ON, _REPAIR_OFF, _REPAIR_OFF_NO_PROBE = 1, 0, -1
_NO_QUEUE, _RECV_QUEUE, _SEND_QUEUE = 0, 1, 2
_TIMESTAMPS, _SACK, _SCALES, _IN_MICROSECONDS = 1, 2, 4, 64  # TCPI_OPT_TIMESTAMPS, TCPI_OPT_SACK, TCPI_OPT_WSCALE, TCPI_OPT_USEC_TS
_TCPOPT_MSS, _TCPOPT_WINDOW, _TCPOPT_SACK_PERM, _TCPOPT_TIMESTAMP = 2, 3, 4, 8
_OPTION = struct.Struct("<II")  # struct tcp_repair_opt
_WINDOW_SIZE = 20
_SIOCOUTQNSD = 0x894B
_INFO_SIZE = 104
_ACKED_AT = 120  # tcpi_bytes_acked
_CHUNK = 16 << 10
"""Bytes put into a queue at once: each chunk is one buffer of the kernel."""


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


def acknowledged(handle: Handle) -> int | None:
    """Bytes that were sent and acknowledged over a connection that this side has begun; None where the kernel does not tell. Raises OSError."""
    info = handle.octets(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
    # The SYN counts, too.
    return max(0, struct.unpack_from("<Q", info, _ACKED_AT)[0] - 1) if len(info) >= _ACKED_AT + 8 else None


def connection(handle: Handle) -> Connection:
    """The inner state of an established connection. Raises OSError; PermissionError without CAP_NET_ADMIN in its network namespace.

    While the mode is on, nothing is sent; no probe is sent when it ends.
    """
    info = handle.octets(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    reuse = begin_repair(handle)
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
        end_repair(handle, reuse, probe=False)


def counts_microseconds(options: int) -> bool:
    """Whether the timestamps of a connection with these TCPI_OPT_* bits do (RTAX_FEATURE_TCP_USEC_TS, Linux 6.7)."""
    return bool(options & _IN_MICROSECONDS)


def begin_repair(handle: Handle) -> int:
    """Nothing is sent from now on, not even when the socket is closed. Returns SO_REUSEADDR, which the end of it clears
    (net/ipv4/tcp.c, tcp_repair_set). Raises OSError; PermissionError without CAP_NET_ADMIN in its network namespace."""
    reuse = handle.number(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    handle.set(socket.IPPROTO_TCP, _REPAIR, _REPAIR_ON)
    return reuse


def end_repair(handle: Handle, reuse: int, *, probe: bool) -> None:
    """The connection is as any other again. `reuse`: SO_REUSEADDR; `probe`: ask the other side for an answer, which tells its window.
    Raises OSError."""
    handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, _NO_QUEUE)
    handle.set(socket.IPPROTO_TCP, _REPAIR, _REPAIR_OFF if probe else _REPAIR_OFF_NO_PROBE)
    handle.set(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)


def begin_rebuilding(handle: Handle, found: Connection, received: int) -> None:
    """Before connect(2), in repair mode: the sequence numbers that stand before what waits; `received`: bytes that wait to be read. Raises
    OSError."""
    for queue, sequence in (
        (_RECV_QUEUE, found.receive_sequence - received),
        (_SEND_QUEUE, found.send_sequence - len(found.sending)),
    ):
        handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
        handle.set(socket.IPPROTO_TCP, _QUEUE_SEQ, _signed(sequence))


def rebuild(handle: Handle, found: Connection, received: Iterable[bytes], now: int) -> None:
    """After connect(2), in repair mode: what both sides had agreed upon, what waits to be read, and what was sent and not acknowledged.
    `now`: what the connection's clock of timestamps says. What was not sent yet is left out. Raises OSError."""
    options = [(_TCPOPT_MSS, found.mss)]
    if found.options & _SCALES:
        options.append((_TCPOPT_WINDOW, found.send_scale | found.receive_scale << 16))
    if found.options & _SACK:
        options.append((_TCPOPT_SACK_PERM, 0))
    if found.options & _TIMESTAMPS:
        options.append((_TCPOPT_TIMESTAMP, 0))
    handle.set_octets(socket.IPPROTO_TCP, _REPAIR_OPTIONS, b"".join(_OPTION.pack(*option) for option in options))
    if found.options & _TIMESTAMPS:
        handle.set(socket.IPPROTO_TCP, _TIMESTAMP, _signed(now))
    sent = found.sending[: len(found.sending) - found.unsent]
    for queue, parts in ((_RECV_QUEUE, received), (_SEND_QUEUE, (sent,))):
        handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
        for data in parts:
            for start in range(0, len(data), _CHUNK):
                handle.send_all(data[start : start + _CHUNK])
    handle.set(socket.IPPROTO_TCP, _REPAIR_QUEUE, _NO_QUEUE)
    if found.window is not None:
        handle.set_octets(socket.IPPROTO_TCP, _REPAIR_WINDOW, found.window)


def timestamps_at(found: Connection, captured: int) -> int:
    """What the clock of its timestamps says, a moment after the capture; `captured`: CLOCK_MONOTONIC of then, in nanoseconds.

    Even: bit 0 would ask for microseconds (Linux 6.7, do_tcp_setsockopt).
    """
    return ((found.timestamp or 0) + captured // 1_000_000 + 3) & 0xFFFFFFFE


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


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
