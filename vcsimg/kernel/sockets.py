"""Sockets through a descriptor: addresses as the kernel has them, options, and what waits to be received."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from vcsimg.kernel.calls import call, call_in_a_row
from vcsimg.kernel.syscalls import NR

_libc = ctypes.CDLL(None, use_errno=True)
_ADDRESS_SIZE = 128  # struct sockaddr_storage
_address = ctypes.create_string_buffer(_ADDRESS_SIZE)
_length = ctypes.c_uint32()
_LENGTH_AT = ctypes.addressof(_length)
_number = ctypes.c_int32()
_NUMBER_AT = ctypes.addressof(_number)

_SOL_UDP, _SOL_NETLINK, _SOL_TCP, _SOL_IP, _SOL_IPV6, _SOL_SOCKET = 17, 270, 6, 0, 41, 1
_SO_PEEK_OFF = 42
_SO_GET_FILTER = _SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_NETLINK_LIST_MEMBERSHIPS = 9
_SCM_MAX_FD = 253
_SIOCATMARK = 0x8905
_KIND = (socket.SO_DOMAIN, socket.SO_TYPE, socket.SO_PROTOCOL)
_ROOM_FOR_ALL = 8 << 20
_CHUNK = 1 << 17
_BPF_INSTRUCTION = 8


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its name in lower case, level, number, and size in bytes; 0: a number, -n: up to n bytes that are kept as such."""

    name: str
    level: int
    number: int
    size: int = 0


_ALL: tuple[Option, ...] = (
    Option("so_debug", _SOL_SOCKET, 1), Option("so_reuseaddr", _SOL_SOCKET, 2), Option("so_dontroute", _SOL_SOCKET, 5),
    Option("so_broadcast", _SOL_SOCKET, 6), Option("so_sndbuf", _SOL_SOCKET, 7), Option("so_rcvbuf", _SOL_SOCKET, 8),
    Option("so_keepalive", _SOL_SOCKET, 9), Option("so_oobinline", _SOL_SOCKET, 10), Option("so_no_check", _SOL_SOCKET, 11),
    Option("so_priority", _SOL_SOCKET, 12), Option("so_linger", _SOL_SOCKET, 13, 8), Option("so_reuseport", _SOL_SOCKET, 15),
    Option("so_passcred", _SOL_SOCKET, 16), Option("so_rcvlowat", _SOL_SOCKET, 18), Option("so_rcvtimeo", _SOL_SOCKET, 20, 16),
    Option("so_sndtimeo", _SOL_SOCKET, 21, 16), Option("so_bindtodevice", _SOL_SOCKET, 25, -16), Option("so_timestamp", _SOL_SOCKET, 29),
    Option("so_passsec", _SOL_SOCKET, 34), Option("so_timestampns", _SOL_SOCKET, 35), Option("so_mark", _SOL_SOCKET, 36),
    Option("so_timestamping", _SOL_SOCKET, 37), Option("so_rxq_ovfl", _SOL_SOCKET, 40), Option("so_peek_off", _SOL_SOCKET, 42),
    Option("so_nofcs", _SOL_SOCKET, 43), Option("so_busy_poll", _SOL_SOCKET, 46), Option("so_zerocopy", _SOL_SOCKET, 60),
    Option("so_txtime", _SOL_SOCKET, 61, 8), Option("so_prefer_busy_poll", _SOL_SOCKET, 69), Option("so_buf_lock", _SOL_SOCKET, 72),
    Option("so_passpidfd", _SOL_SOCKET, 76), Option("so_lock_filter", _SOL_SOCKET, 44), Option("so_select_err_queue", _SOL_SOCKET, 45),
    Option("so_max_pacing_rate", _SOL_SOCKET, 47, 8), Option("so_timestamp_new", _SOL_SOCKET, 63),
    Option("so_timestampns_new", _SOL_SOCKET, 64), Option("so_timestamping_new", _SOL_SOCKET, 65),
    Option("so_busy_poll_budget", _SOL_SOCKET, 70), Option("so_reserve_mem", _SOL_SOCKET, 73), Option("so_txrehash", _SOL_SOCKET, 74),
    Option("so_rcvmark", _SOL_SOCKET, 75), Option("so_rcvpriority", _SOL_SOCKET, 82), Option("so_passrights", _SOL_SOCKET, 83),
    Option("so_inq", _SOL_SOCKET, 84),
)  # fmt: skip
"""socket(7), asm-generic/socket.h. Not SO_ERROR, which asking clears, nor what changes by itself (SO_INCOMING_CPU, SO_MEMINFO)."""

_INET: tuple[Option, ...] = (
    Option("ip_tos", _SOL_IP, 1), Option("ip_ttl", _SOL_IP, 2), Option("ip_options", _SOL_IP, 4, -40), Option("ip_recvopts", _SOL_IP, 6),
    Option("ip_passsec", _SOL_IP, 18), Option("ip_retopts", _SOL_IP, 7), Option("ip_pktinfo", _SOL_IP, 8), Option("ip_mtu_discover", _SOL_IP, 10),
    Option("ip_recverr", _SOL_IP, 11), Option("ip_recvttl", _SOL_IP, 12), Option("ip_recvtos", _SOL_IP, 13),
    Option("ip_freebind", _SOL_IP, 15), Option("ip_transparent", _SOL_IP, 19), Option("ip_recvorigdstaddr", _SOL_IP, 20),
    Option("ip_minttl", _SOL_IP, 21), Option("ip_nodefrag", _SOL_IP, 22), Option("ip_checksum", _SOL_IP, 23),
    Option("ip_bind_address_no_port", _SOL_IP, 24), Option("ip_recvfragsize", _SOL_IP, 25), Option("ip_recverr_rfc4884", _SOL_IP, 26),
    Option("ip_multicast_if", _SOL_IP, 32, 4), Option("ip_multicast_ttl", _SOL_IP, 33), Option("ip_multicast_loop", _SOL_IP, 34),
    Option("ip_multicast_all", _SOL_IP, 49), Option("ip_unicast_if", _SOL_IP, 50), Option("ip_local_port_range", _SOL_IP, 51),
)  # fmt: skip
"""ip(7), linux/in.h"""

_INET6: tuple[Option, ...] = (
    Option("ipv6_unicast_hops", _SOL_IPV6, 16), Option("ipv6_multicast_if", _SOL_IPV6, 17), Option("ipv6_multicast_hops", _SOL_IPV6, 18),
    Option("ipv6_multicast_loop", _SOL_IPV6, 19), Option("ipv6_mtu_discover", _SOL_IPV6, 23), Option("ipv6_recverr", _SOL_IPV6, 25),
    Option("ipv6_v6only", _SOL_IPV6, 26), Option("ipv6_multicast_all", _SOL_IPV6, 29), Option("ipv6_recverr_rfc4884", _SOL_IPV6, 31),
    Option("ipv6_recvpktinfo", _SOL_IPV6, 49), Option("ipv6_recvhoplimit", _SOL_IPV6, 51), Option("ipv6_recvrthdr", _SOL_IPV6, 56),
    Option("ipv6_recvhopopts", _SOL_IPV6, 53), Option("ipv6_recvdstopts", _SOL_IPV6, 58), Option("ipv6_dontfrag", _SOL_IPV6, 62),
    Option("ipv6_recvtclass", _SOL_IPV6, 66), Option("ipv6_tclass", _SOL_IPV6, 67), Option("ipv6_autoflowlabel", _SOL_IPV6, 70),
    Option("ipv6_addr_preferences", _SOL_IPV6, 72), Option("ipv6_minhopcount", _SOL_IPV6, 73), Option("ipv6_recvorigdstaddr", _SOL_IPV6, 74),
    Option("ipv6_transparent", _SOL_IPV6, 75), Option("ipv6_freebind", _SOL_IPV6, 78), Option("ipv6_2292pktinfo", _SOL_IPV6, 2),
    Option("ipv6_2292hopopts", _SOL_IPV6, 3), Option("ipv6_2292dstopts", _SOL_IPV6, 4), Option("ipv6_2292rthdr", _SOL_IPV6, 5),
    Option("ipv6_2292hoplimit", _SOL_IPV6, 8), Option("ipv6_flowinfo", _SOL_IPV6, 11), Option("ipv6_flowinfo_send", _SOL_IPV6, 33),
    Option("ipv6_hopopts", _SOL_IPV6, 54, -256), Option("ipv6_rthdrdstopts", _SOL_IPV6, 55, -256),
    Option("ipv6_rthdr", _SOL_IPV6, 57, -256), Option("ipv6_dstopts", _SOL_IPV6, 59, -256), Option("ipv6_recvpathmtu", _SOL_IPV6, 60),
    Option("ipv6_unicast_if", _SOL_IPV6, 76), Option("ipv6_recvfragsize", _SOL_IPV6, 77), Option("ipv6_router_alert_isolate", _SOL_IPV6, 30),
)  # fmt: skip
"""ipv6(7), linux/in6.h"""

_TCP: tuple[Option, ...] = (
    Option("tcp_nodelay", _SOL_TCP, 1), Option("tcp_cork", _SOL_TCP, 3), Option("tcp_keepidle", _SOL_TCP, 4),
    Option("tcp_keepintvl", _SOL_TCP, 5), Option("tcp_keepcnt", _SOL_TCP, 6), Option("tcp_syncnt", _SOL_TCP, 7),
    Option("tcp_linger2", _SOL_TCP, 8), Option("tcp_defer_accept", _SOL_TCP, 9), Option("tcp_window_clamp", _SOL_TCP, 10),
    Option("tcp_congestion", _SOL_TCP, 13, -16), Option("tcp_thin_linear_timeouts", _SOL_TCP, 16), Option("tcp_user_timeout", _SOL_TCP, 18),
    Option("tcp_fastopen", _SOL_TCP, 23), Option("tcp_notsent_lowat", _SOL_TCP, 25), Option("tcp_save_syn", _SOL_TCP, 27),
    Option("tcp_fastopen_connect", _SOL_TCP, 30), Option("tcp_ulp", _SOL_TCP, 31, -16), Option("tcp_fastopen_no_cookie", _SOL_TCP, 34),
    Option("tcp_inq", _SOL_TCP, 36), Option("tcp_tx_delay", _SOL_TCP, 37), Option("tcp_maxseg", _SOL_TCP, 2),
    Option("tcp_rto_max_ms", _SOL_TCP, 44), Option("tcp_rto_min_us", _SOL_TCP, 45), Option("tcp_delack_max_us", _SOL_TCP, 46),
)  # fmt: skip
"""tcp(7), linux/tcp.h. Not TCP_QUICKACK, which changes by itself. TCP_MAXSEG of a connection follows the path; of others it is what was asked for."""

_UDP: tuple[Option, ...] = (
    Option("udp_cork", _SOL_UDP, 1), Option("udp_encap", _SOL_UDP, 100), Option("udp_no_check6_tx", _SOL_UDP, 101),
    Option("udp_no_check6_rx", _SOL_UDP, 102), Option("udp_segment", _SOL_UDP, 103), Option("udp_gro", _SOL_UDP, 104),
)  # fmt: skip
"""udp(7), linux/udp.h"""

_NETLINK = tuple(
    Option(name, _SOL_NETLINK, number)
    for name, number in (
        ("netlink_pktinfo", 3),
        ("netlink_broadcast_error", 4),
        ("netlink_no_enobufs", 5),
        ("netlink_cap_ack", 10),
        ("netlink_ext_ack", 11),
        ("netlink_get_strict_chk", 12),
    )
)
"""netlink(7)"""


class OptionValues:
    """The values of all options of one kind of socket, read at once and put into words later: a server has thousands of sockets."""

    def __init__(self, plan: OptionPlan, failed: bytes, lengths: bytes, values: bytes) -> None:
        self._plan = plan
        self._failed = failed
        self._lengths = lengths
        self._values = values

    @property
    def key(self) -> Hashable:
        """Equal for sockets whose options are all equal."""
        return self._plan.kind, self._failed, self._lengths, self._values

    def __iter__(self) -> Iterator[tuple[str, int | bytes]]:
        """(name, value) of those that the socket and the kernel have."""
        for (which, at), (failed,), (length,) in zip(
            self._plan.places, struct.iter_unpack("<q", self._failed), struct.iter_unpack("<I", self._lengths), strict=True
        ):
            if failed:
                continue
            value = self._values[at : at + length]
            if which.size:
                yield which.name, value
            else:
                yield which.name, int.from_bytes(value, "little", signed=True) if length == 4 else value[0]


class OptionPlan:
    """Where the values of the options of one kind of socket go to."""

    def __init__(self, kind: tuple[int, int]) -> None:
        options = options_of(*kind)
        sizes = np.array([abs(which.size) or 4 for which in options], np.uint32)
        places = np.cumsum(sizes) - sizes
        self.kind = kind
        self.places: list[tuple[Option, int]] = list(zip(options, places.tolist(), strict=True))
        self._sizes = sizes
        self._places = places
        self._calls = np.zeros((len(options), 7), np.uint64)
        self._calls[:, 0] = NR["getsockopt"]
        self._calls[:, 2] = [which.level for which in options]
        self._calls[:, 3] = [which.number for which in options]

    def read(self, fds: Sequence[int]) -> Iterator[OptionValues]:
        """The values for each of some sockets of this kind."""
        lengths = np.tile(self._sizes, (len(fds), 1))
        values = np.zeros((len(fds), int(self._sizes.sum())), np.uint8)
        calls = np.tile(self._calls, (len(fds), 1, 1))
        calls[:, :, 1] = np.array(fds, np.uint64)[:, None]
        calls[:, :, 4] = values.ctypes.data + np.arange(len(fds))[:, None] * values.shape[1] + self._places
        calls[:, :, 5] = lengths.ctypes.data + np.arange(lengths.size).reshape(lengths.shape) * lengths.itemsize
        failed = call_in_a_row(calls.reshape(-1, 7)).reshape(lengths.shape)
        for row, length, value in zip(failed, lengths, values, strict=True):
            yield OptionValues(self, row.tobytes(), length.tobytes(), value.tobytes())


@cache
def plan_of(family: int, protocol: int) -> OptionPlan:
    """All options of a kind of socket."""
    return OptionPlan((family, protocol))


def options_of(family: int, protocol: int) -> tuple[Option, ...]:
    """The options that a kind of socket has. A kernel may lack some of them."""
    found = _ALL
    if family == socket.AF_INET6:
        found += _INET6
    if family in (socket.AF_INET, socket.AF_INET6):
        found += _INET
        if protocol == socket.IPPROTO_TCP:
            found += _TCP
        if protocol == socket.IPPROTO_UDP:
            found += _UDP
    if family == socket.AF_NETLINK:
        found += _NETLINK
    return found


class Handle:
    """A socket by its descriptor, which belongs to the caller.

    Python's own class is not used: when the program has a default timeout, it makes the socket non-blocking, for all who share it.
    """

    def __init__(self, fd: int, kind: tuple[int, int, int] | None = None) -> None:
        """`kind`: its family, type and protocol, if known. Raises OSError when it is no socket."""
        self.fd = fd
        self.family, self.type, self.protocol = kind if kind is not None else map(self._kind, _KIND)

    def _kind(self, number: int) -> int:
        return self.number(_SOL_SOCKET, number)

    def fileno(self) -> int:
        """The descriptor."""
        return self.fd

    def number(self, level: int, number: int) -> int:
        """An option that is an int. Raises OSError."""
        _length.value = 4
        call(NR["getsockopt"], self.fd, level, number, _NUMBER_AT, _LENGTH_AT)
        return _number.value if _length.value == 4 else _number.value & 0xFF

    def octets(self, level: int, number: int, size: int) -> bytes:
        """At most `size` bytes of an option. Raises OSError."""
        buffer = ctypes.create_string_buffer(size)
        _length.value = size
        call(NR["getsockopt"], self.fd, level, number, ctypes.addressof(buffer), _LENGTH_AT)
        return buffer.raw[: _length.value]

    def set(self, level: int, number: int, value: int) -> None:
        """Set an option that is an int. Raises OSError."""
        _number.value = value
        call(NR["setsockopt"], self.fd, level, number, _NUMBER_AT, 4)

    def set_octets(self, level: int, number: int, value: bytes) -> None:
        """Set any option. Raises OSError."""
        buffer = ctypes.create_string_buffer(value, len(value))
        call(NR["setsockopt"], self.fd, level, number, ctypes.addressof(buffer), len(value))

    def send_all(self, data: bytes) -> None:
        """Without waiting. Raises OSError; EAGAIN: there is no room."""
        while data:
            buffer = ctypes.create_string_buffer(data, len(data))
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            data = data[call(NR["sendto"], self.fd, ctypes.addressof(buffer), len(data), flags) :]

    def peek(self, size: int, flags: int = 0) -> bytes:
        """At most `size` bytes of what waits; they stay. `flags`: of recv(2). Raises OSError."""
        buffer = ctypes.create_string_buffer(size)
        count = call(NR["recvfrom"], self.fd, ctypes.addressof(buffer), size, flags | socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return buffer.raw[:count]


def peer_address(fd: int) -> bytes | None:
    """struct sockaddr of the other side, None when not connected."""
    try:
        return _ask_address(_libc.getpeername, fd)
    except OSError:
        return None


def _ask_address(function: ctypes._NamedFuncPointer, fd: int) -> bytes:
    _length.value = _ADDRESS_SIZE
    if function(fd, _address, ctypes.byref(_length)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return _address.raw[: _length.value]


def address_text(address: bytes) -> str | None:
    """An address for people: `host:port`, a path, `@name` for an abstract one; None when it says nothing."""
    if len(address) < 2:
        return None
    (family,) = struct.unpack_from("<H", address)
    if family == socket.AF_UNIX:
        name = address[2:]
        if not name:
            return None
        return "@" + os.fsdecode(name[1:]) if name[0] == 0 else os.fsdecode(name.partition(b"\0")[0])
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, address[4:8])}:{int.from_bytes(address[2:4], 'big')}"
    if family == socket.AF_INET6:
        return f"[{socket.inet_ntop(family, address[8:24])}]:{int.from_bytes(address[2:4], 'big')}"
    if family == socket.AF_NETLINK:
        return f"{int.from_bytes(address[4:8], 'little')}"
    return None


def host_of(address: bytes) -> bytes:
    """The part of an internet address that is not the port."""
    (family,) = struct.unpack_from("<H", address)
    return address[8:24] if family == socket.AF_INET6 else address[4:8]


def memberships(handle: Handle) -> tuple[int, ...]:
    """The multicast groups of a netlink socket."""
    words = handle.octets(_SOL_NETLINK, _NETLINK_LIST_MEMBERSHIPS, 128)
    bits = int.from_bytes(words, "little")
    return tuple(number + 1 for number in range(bits.bit_length()) if bits >> number & 1)


def attached_filter(handle: Handle) -> bytes:
    """The classic BPF program on a socket: struct sock_filter[]. Empty when it has none, or an extended one. Raises OSError."""
    length = ctypes.c_uint32(0)  # asks for the number of instructions
    if _libc.getsockopt(handle.fileno(), _SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length)) == 0 and not length.value:
        return b""
    buffer = ctypes.create_string_buffer(4096 * _BPF_INSTRUCTION)
    length.value = 4096
    if _libc.getsockopt(handle.fileno(), _SOL_SOCKET, _SO_GET_FILTER, buffer, ctypes.byref(length)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return buffer.raw[: length.value * _BPF_INSTRUCTION]


NOTHING_PASSES = struct.pack("<HBBIHBBI", 0x00, 0, 0, 0x76637369, 0x06, 0, 0, 0)
"""A classic BPF program (load a number that nobody else would, return 0): whatever arrives is dropped before it is looked at, so TCP does not
acknowledge it and the other side sends it again."""


def attach_filter(handle: Handle, program: bytes) -> None:
    """struct sock_filter[]; in the place of the filter before. Raises OSError (EPERM: SO_LOCK_FILTER)."""
    code = ctypes.create_string_buffer(program, len(program))
    handle.set_octets(
        _SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("<H6xQ", len(program) // _BPF_INSTRUCTION, ctypes.addressof(code))
    )


def detach_filter(handle: Handle) -> None:
    """Raises OSError (ENOENT: there is none)."""
    handle.set(_SOL_SOCKET, _SO_DETACH_FILTER, 0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message, or a stretch of a stream, that waits. `source`: the sender's struct sockaddr; `fds`: descriptors of ours that were passed
    with it, to be closed by the caller; `sender`: process, user and group id, where the socket asks for them; `urgent`: MSG_OOB."""

    data: bytes
    source: bytes | None
    fds: Sequence[int]
    sender: tuple[int, ...] | None = None
    urgent: bool = False


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVector)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


_MSG_CMSG_CLOEXEC = 0x40000000
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
_SCM_PIDFD = 4
_CONTROL_SIZE = socket.CMSG_SPACE(_SCM_MAX_FD * 4) + 4096
_CMSG_HEADER = struct.Struct("<Qii")
_chunk = ctypes.create_string_buffer(_CHUNK)
_control = ctypes.create_string_buffer(_CONTROL_SIZE)


def peek(fd: int) -> Waiting:
    """The next message, or stretch of a stream, from SO_PEEK_OFF on; it stays in the socket. Raises OSError; EAGAIN: no more."""
    room, data = _CHUNK, _chunk
    while True:
        name = ctypes.create_string_buffer(_ADDRESS_SIZE)
        vector = _IoVector(ctypes.addressof(data), room)
        header = _MessageHeader(
            ctypes.addressof(name), _ADDRESS_SIZE, ctypes.pointer(vector), 1, ctypes.addressof(_control), _CONTROL_SIZE, 0
        )
        size = _libc.recvmsg(fd, ctypes.byref(header), _PEEK)
        if size < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        control = ctypes.string_at(_control, header.controllen)
        fds = list(_passed(control))
        if not header.flags & socket.MSG_TRUNC:
            sender = _credentials(control)
            return Waiting(ctypes.string_at(data, size), name.raw[: header.namelen] or None, fds, sender)
        for passed in fds:
            os.close(passed)
        room *= 4
        data = ctypes.create_string_buffer(room)


def _passed(control: bytes) -> Iterator[int]:
    """Descriptors in SCM_RIGHTS. One that the kernel adds to say who sent (SCM_PIDFD) is closed."""
    position = 0
    while position + _CMSG_HEADER.size <= len(control):
        length, level, kind = _CMSG_HEADER.unpack_from(control, position)
        if length < _CMSG_HEADER.size:
            return
        if level == _SOL_SOCKET and kind in (socket.SCM_RIGHTS, _SCM_PIDFD):
            body = control[position + _CMSG_HEADER.size : position + length]
            for (fd,) in struct.iter_unpack("<i", body[: len(body) // 4 * 4]):
                if kind == socket.SCM_RIGHTS:
                    yield fd
                else:
                    os.close(fd)
        position += (length + 7) & -8


def _credentials(control: bytes) -> tuple[int, ...] | None:
    """SCM_CREDENTIALS of unix(7)."""
    position = 0
    while position + _CMSG_HEADER.size <= len(control):
        length, level, kind = _CMSG_HEADER.unpack_from(control, position)
        if length < _CMSG_HEADER.size:
            break
        if (level, kind) == (_SOL_SOCKET, socket.SCM_CREDENTIALS):
            return struct.unpack_from("<3i", control, position + _CMSG_HEADER.size)
        position += (length + 7) & -8
    return None


def peek_with_urgent(handle: Handle) -> list[Waiting]:
    """All that waits in a TCP connection in which urgent data waits: what comes before it, the urgent byte, what comes after; they stay. A peek
    ends where that is, and the one that begins there leaves it out, unless it stands among the rest (SO_OOBINLINE). Raises OSError; before
    Linux 6.9, where SO_PEEK_OFF is not for TCP."""
    offset_before = peek_offset(handle)
    inline = bool(handle.number(_SOL_SOCKET, socket.SO_OOBINLINE))
    try:
        before = b""
        if not struct.unpack("i", fcntl.ioctl(handle.fd, _SIOCATMARK, bytes(4)))[0]:
            set_peek_offset(handle, 0)
            before = handle.peek(_ROOM_FOR_ALL)
        rest = bytearray()
        position = len(before)
        while part := _peek_at(handle, position):
            rest += part
            position = len(before) + len(rest) + (not inline)
        if inline:
            urgent = bytes(rest[:1])
            del rest[:1]
        else:
            urgent = handle.peek(1, socket.MSG_OOB)
    finally:
        set_peek_offset(handle, offset_before)
    return [Waiting(data, None, (), urgent=one) for data, one in ((before, False), (urgent, True), (bytes(rest), False)) if data]


def _peek_at(handle: Handle, offset: int) -> bytes:
    set_peek_offset(handle, offset)
    try:
        return handle.peek(_ROOM_FOR_ALL)
    except BlockingIOError:
        return b""


def peek_offset(handle: Handle) -> int:
    """SO_PEEK_OFF; -1: peeking always begins at the start. Raises OSError for sockets without it."""
    return handle.number(_SOL_SOCKET, _SO_PEEK_OFF)


def set_peek_offset(handle: Handle, offset: int) -> None:
    """Raises OSError for sockets without it."""
    handle.set(_SOL_SOCKET, _SO_PEEK_OFF, offset)
