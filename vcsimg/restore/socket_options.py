"""Options of sockets: those that differ from what a new socket has."""

from __future__ import annotations

from contextlib import suppress

from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.kernel.sockets import Handle, attach_filter, options_of
from vcsimg.restore.addresses import number_of, set_number, set_octets

_FIRST = frozenset(
    ("so_reuseaddr", "so_reuseport", "ipv6_v6only", "ip_freebind", "ipv6_freebind", "ip_transparent", "ipv6_transparent",
     "so_bindtodevice", "so_mark")
)  # fmt: skip
"""Options that bind(2) looks at."""
_NEVER = frozenset(("tcp_ulp", "tcp_save_syn", "tcp_fastopen"))
"""They concern state that is not restored."""
_BUFFERS = frozenset(("so_sndbuf", "so_rcvbuf"))
_LAST = ("so_buf_lock", "so_peek_off")
"""Others change them."""
_AT_LAST = "so_lock_filter"
_MAXSEG = "tcp_maxseg"
_UNCONNECTED = (7, 10)
"""CLOSE and LISTEN (net/tcp_states.h)."""


def set_options(process: Process, fd: int, found: items.Socket, *, first: bool) -> None:
    """`first`: those that matter to bind(2); else all others, when all that waits is in the socket."""
    values = options(process, found)
    names = [name for name in values if (name in _FIRST) is first] if first else [name for name in values if name not in _LAST]
    for name in [*names, *(() if first else (name for name in _LAST if name in values))]:
        if name in (*_NEVER, _AT_LAST) or (name == _MAXSEG and found.state not in _UNCONNECTED):
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
