"""Section `sockets`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vcsimg.image.records import Record
from vcsimg.image.sections.item import Hex, Item, Octal
from vcsimg.image.sections.names import OpenFlags, Seals, ShutdownFlags, SocketFamily, SocketState, SocketType


@dataclass(frozen=True, slots=True)
class Socket(Item, kind="socket"):
    """By the lowest descriptor that refers to it.

    `local_raw`, `peer_raw`: struct sockaddr as getsockname(2), getpeername(2) give it.
    `peer_inode`: of a connected unix socket. `bound_device`, `bound_inode`: the file that a unix socket is bound to.
    `peer_pid`: SO_PEERCRED, as vcsimg sees it: who called listen(2), connect(2) or socketpair(2).
    `acknowledged`: of a TCP connection of the machine with itself: bytes that were sent and arrived.
    `unlinked`: the path that a unix socket is bound to leads to it no more.
    """

    fd: int
    inode: int
    family: SocketFamily
    type: SocketType
    protocol: int
    state: SocketState | None
    shutdown: ShutdownFlags | None
    local: str | None
    local_raw: bytes | None
    peer: str | None
    peer_raw: bytes | None
    peer_inode: int | None
    bound_device: str | None
    bound_inode: int | None
    backlog: int | None
    peer_pid: int | None = None
    acknowledged: int | None = None
    unlinked: bool | None = None


@dataclass(frozen=True, slots=True)
class Options(Item):
    """getsockopt(2): the options by name, lower case, numbers or hexadecimal bytes. One record a socket."""

    kind: ClassVar[str] = "options"
    fd: int
    values: tuple[tuple[str, str], ...]

    def record(self) -> Record:
        return Record(self.kind, {"fd": str(self.fd), **dict(self.values)})

    @classmethod
    def parse(cls, record: Record) -> Options:
        return cls(record.int("fd"), tuple((name, value) for name, value in record.fields.items() if name != "fd"))


@dataclass(frozen=True, slots=True)
class Message(Item, kind="message"):
    """Bytes that wait to be received, in order. A record is a message (datagram, seqpacket), or a stretch of a stream.

    `source`: the sender's struct sockaddr, if it has one. `descriptors`: how many were passed with it (records `passed` follow).
    `sender`: SCM_CREDENTIALS: process, user and group id, where the receiver asks for them (SO_PASSCRED). `urgent`: MSG_OOB.
    """

    fd: int
    data: bytes
    source: bytes | None
    descriptors: int
    sender: tuple[int, ...] | None = None
    urgent: bool | None = None


@dataclass(frozen=True, slots=True)
class Passed(Item, kind="passed"):
    """A descriptor inside a message that waits: `same` is a descriptor of this process for the same open file, if there is one.

    Of a memory file that is nowhere else: its `mode`, `seals`, and the sha256 of its `content`.
    """

    fd: int
    message: int
    index: int
    same: int | None
    type: str
    path: str
    flags: OpenFlags
    position: int
    device: str
    inode: int
    mode: Octal | None = None
    seals: Seals | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class WaitingConnection(Item, kind="waiting"):
    """A connection to a listening unix or TCP socket that was not accepted yet: inode of the socket that connected; 0: unknown."""

    fd: int
    peer_inode: int


@dataclass(frozen=True, slots=True)
class Tcp(Item, kind="tcp"):
    """State of an established connection, as TCP_REPAIR gives it to the privileged (tcp(7), linux/tcp.h).

    `options`: TCPI_OPT_* bits of tcp_info; `window`: struct tcp_repair_window; `timestamp`: offset of the connection's
    timestamps to CLOCK_MONOTONIC in milliseconds (absent: none in use, or in microseconds). `unsent`: bytes at the end of `sending` that were not sent yet.
    """

    fd: int
    send_sequence: int
    receive_sequence: int
    sending: bytes
    unsent: int
    options: Hex
    mss: int
    send_scale: int
    receive_scale: int
    timestamp: int | None
    window: bytes | None


@dataclass(frozen=True, slots=True)
class Unsent(Item, kind="unsent"):
    """Bytes that were sent but not acknowledged (SIOCOUTQ), where their content cannot be read."""

    fd: int
    length: int


@dataclass(frozen=True, slots=True)
class Netlink(Item, kind="netlink"):
    """Multicast groups that a netlink socket has joined."""

    fd: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Membership(Item, kind="membership"):
    """A multicast group that a socket has joined on an interface. `exclude`: messages come from all but `sources` (blanks between them), else
    from these only."""

    fd: int
    interface: str
    group: str
    exclude: bool
    sources: str


@dataclass(frozen=True, slots=True)
class SocketFilter(Item, kind="filter"):
    """A classic BPF program on a socket: struct sock_filter, 8 bytes each."""

    fd: int
    instructions: bytes
