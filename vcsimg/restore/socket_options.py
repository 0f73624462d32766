"""Options of sockets: those that differ from what a new socket has."""

from __future__ import annotations

import socket
from contextlib import suppress

from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.kernel.sockets import Handle, Option, attach_filter, options_of
from vcsimg.restore.addresses import number_of, octets_of, set_number, set_octets

_FIRST = frozenset(
    ("so_reuseaddr", "so_reuseport", "ipv6_v6only", "ip_freebind", "ipv6_freebind", "ip_transparent", "ipv6_transparent",
     "so_bindtodevice", "so_mark")
)  # fmt: skip
"""Options that bind(2) looks at."""
_ULP = "tcp_ulp"
_UNCONNECTED_ONLY = frozenset(("tcp_save_syn", "tcp_fastopen", "tcp_maxseg"))
"""They are for connections to come; of those that there are, they tell something else."""
_BUFFERS = frozenset(("so_sndbuf", "so_rcvbuf"))
_LAST = ("so_buf_lock", "so_peek_off")
"""Others change them."""
_AT_LAST = "so_lock_filter"
_UNCONNECTED = (7, 10)
"""CLOSE and LISTEN (net/tcp_states.h)."""


def set_options(process: Process, fd: int, found: items.Socket, *, first: bool) -> None:
    """`first`: those that matter to bind(2); else all others, when all that waits is in the socket."""
    values = options(process, found)
    names = [name for name in values if (name in _FIRST) is first] if first else [name for name in values if name not in _LAST]
    for name in [*names, *(() if first else (name for name in _LAST if name in values))]:
        if name in (_ULP, _AT_LAST) or (name in _UNCONNECTED_ONLY and found.state not in _UNCONNECTED):
            continue
        with suppress(OSError, ValueError):
            _set(fd, found, name, values)
    if not first:
        _attach_filter(process, fd, found)
        with suppress(OSError, ValueError):
            _set(fd, found, _AT_LAST, values)


def options(process: Process, found: items.Socket) -> dict[str, str]:
    """By name."""
    return next((dict(one.values) for one in select(process.section("sockets"), items.Options) if one.fd == found.fd), {})


def _set(fd: int, found: items.Socket, name: str, values: dict[str, str]) -> None:
    option = next((option for option in options_of(found.family, found.protocol) if option.name == name), None)
    if option is None:
        return
    text = values.get(name, "")
    if option.size:
        value = bytes.fromhex(text)
        if value.strip(b"\0"):
            set_octets(fd, option.level, option.number, value)
        return
    if number_of(fd, option.level, option.number) == int(text):
        return
    # The kernel doubles what is asked for (socket(7)).
    set_number(fd, option.level, option.number, int(text) // 2 if name in _BUFFERS else int(text))


def _attach_filter(process: Process, fd: int, found: items.Socket) -> None:
    for one in select(process.section("sockets"), items.SocketFilter):
        if one.fd == found.fd:
            attach_filter(Handle(fd), one.instructions)


_INDEFINITE = frozenset(("so_peek_off", "so_sndbuf", "so_rcvbuf", "tcp_window_clamp"))
"""The kernel changes them by itself."""
_INDEFINITE_OF_CONNECTIONS = frozenset(("ip_multicast_ttl", "ip_multicast_if", "ipv6_v6only"))
"""They mean nothing there, and follow from how it came about (net/ipv4/tcp_ipv4.c, tcp_v4_syn_recv_sock; net/ipv6/af_inet6.c, __inet6_bind)."""


def note_on_options(process: Process, fd: int, found: items.Socket, notes: list[str]) -> None:
    """Say which options could not be set, for lack of privilege, or because this kernel knows them not. When all is done."""
    values = options(process, found)
    ignored = set(_INDEFINITE)
    if found.type == socket.SOCK_STREAM:
        ignored |= _INDEFINITE_OF_CONNECTIONS
        if found.state not in _UNCONNECTED:
            ignored |= _UNCONNECTED_ONLY
    wanted = [
        option for option in options_of(found.family, found.protocol) if values.get(option.name) and option.name not in ignored
    ]
    other = [option.name.upper() for option in wanted if _text(fd, option) != _stripped(option, values[option.name])]
    if other:
        notes.append(
            f"process {process.pid} fd {found.fd} (socket): {', '.join(other)} could not be set to what it was (setsockopt(2))"
        )


def _text(fd: int, option: Option) -> str:
    """The value of an option, as records have it; empty where this kernel does not know it."""
    try:
        if option.size:
            return _stripped(option, octets_of(fd, option.level, option.number, abs(option.size)).hex())
        return str(number_of(fd, option.level, option.number))
    except OSError:
        return ""


def _stripped(option: Option, text: str) -> str:
    """Octets without those at the end that are zero."""
    return text.rstrip("0") if option.size else text
