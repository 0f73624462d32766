"""Section `sockets`. Nothing is taken out of a socket, and nothing about it is changed: SO_PEEK_OFF, which walks through what waits, is
put back; SO_ERROR, which clears when asked for, is never asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from vcsimg.capture.state.descriptors import Descriptor, Table, type_of
from vcsimg.capture.state.memory_files import content_of, read_all, seals_of
from vcsimg.capture.state.report import Report
from vcsimg.image.sections import sockets as items
from vcsimg.image.snapshot import FileContent
from vcsimg.kernel import inetdiag, kcmp, multicast, procfs, sockets, statx, tcp
from vcsimg.kernel.sockdiag import UnixDiag, UnixSocket
from vcsimg.kernel.sockets_together import Asked, ask

_ESTABLISHED, _CLOSE, _LISTEN = 1, 7, 10
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_SHUT_DOWN, _SHUT_TO_READ = 3, 1
_RECEIVING = frozenset((1, 4, 5))
"""TCP states in which the other side has not ended its part: ESTABLISHED, FIN_WAIT1, FIN_WAIT2 (net/tcp_states.h)."""
_SOCKADDR_IN = 16
_MOST_MESSAGES = 100_000
_REMEMBERED = 10_000
"""Connections; sets of options."""
_QUIET = frozenset((socket.AF_UNIX, socket.AF_INET, socket.AF_INET6))
"""Families whose sockets are nothing but what is read here."""


@dataclass(slots=True)
class _Found:
    """A socket, as read."""

    family: int
    kind: int
    protocol: int
    local: bytes = b""
    peer: bytes | None = None
    listening: bool = False
    options: sockets.OptionValues | None = None
    unix: UnixSocket | None = None
    peer_pid: int | None = None
    over: bool = False
    shut: int | None = None
    unlinked: bool | None = None
    tcp_state: int | None = None
    connection: tcp.Connection | None = None
    unsent: int = 0
    backlog: int | None = None
    waiting: int = 0
    acknowledged: int | None = None
    groups: tuple[int, ...] = ()
    filter: bytes = b""
    memberships: list[multicast.Membership] = field(default_factory=list)
    messages: list[tuple[sockets.Waiting, list[items.Passed]]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


class SocketProbe:
    """Reads sockets."""

    def __init__(self, *, leaving: bool = False) -> None:
        """`leaving`: the process ends with the capture, and its connections to other hosts are to go on elsewhere."""
        self._leaving = leaving
        self._found: dict[int, _Found] = {}
        self._asked: dict[int, Asked | OSError] = {}
        self._unix: dict[int, UnixSocket | OSError] = {}
        self._leading: dict[tuple[bytes, int], bool] = {}
        self._diag: UnixDiag | None = None
        self._network = ""
        self._repair = True
        self._contents: dict[str, FileContent] = {}
        self._groups_of: Table | None = None
        self._groups: list[multicast.Group] = []
        self._offsets: dict[int, int | None] = {}
        self._words: dict[Hashable, tuple[tuple[str, str], ...]] = {}
        self._ended_udp: dict[int, dict[int, int]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "socket"

    def read_together(self, descriptors: Sequence[tuple[Descriptor, int]], table: Table) -> None:
        self._ended_udp.clear()
        self._leading.clear()
        self._asked = {
            descriptor.fd: asked for (descriptor, _), asked in zip(descriptors, ask([own for _, own in descriptors]), strict=True)
        }
        inodes = [
            descriptor.where.inode
            for descriptor, _ in descriptors
            if not isinstance(asked := self._asked[descriptor.fd], OSError) and asked.family == socket.AF_UNIX
        ]
        self._unix.clear()
        if inodes:
            try:
                if self._diag is None or self._network != table.network.name:
                    self._network = table.network.name
                    self._diag = table.network.unix_diag()
                self._unix = dict(zip(inodes, self._diag.ask_all(inodes, _all_sockets(table.tid)), strict=True))
            except OSError as error:
                self._unix = dict.fromkeys(inodes, error)

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        asked = self._asked.pop(descriptor.fd)
        if isinstance(asked, OSError):
            raise asked
        handle = sockets.Handle(own, (asked.family, asked.kind, asked.protocol))
        found = _Found(asked.family, asked.kind, asked.protocol, asked.local, asked.peer, asked.listening, asked.options)
        try:
            found.filter = sockets.attached_filter(handle) if asked.filtered else b""
            if found.filter == sockets.NOTHING_PASSES:
                found.filter = b""  # ours: capture/farewell.py
        except OSError:
            found.troubles.append("its filter cannot be read")
        if handle.family == socket.AF_UNIX:
            found.peer_pid = asked.peer_pid
            self._read_unix(self._unix[descriptor.where.inode], handle, found, table)
        if handle.family in _INTERNET and handle.type == socket.SOCK_STREAM and handle.protocol == socket.IPPROTO_TCP:
            self._read_tcp(descriptor.where.inode, handle, found)
        if handle.family == socket.AF_NETLINK:
            found.groups = sockets.memberships(handle)
        if handle.family in _INTERNET and handle.type != socket.SOCK_STREAM:
            self._read_datagram(handle, found, table)
        if not found.listening:
            self._read_queue(descriptor.fd, asked.ready, handle, found, table)
        self._found[descriptor.fd] = found

    def _read_unix(self, known: UnixSocket | OSError, handle: sockets.Handle, found: _Found, table: Table) -> None:
        if isinstance(known, OSError):
            # A socket that was made in one namespace and passed to another is not found here.
            reason = "it belongs to another network namespace" if known.errno == errno.ENOENT else str(known.strerror)
            found.troubles.append(f"its peer cannot be found: {reason}")
            return
        found.unix = known
        if known.bound is not None:
            place = found.local, known.bound[1]
            if place not in self._leading:  # all that one listener has accepted have its address
                self._leading[place] = _leads_to(*place, table.tid)
            found.unlinked = not self._leading[place] or None
        if known.state == _ESTABLISHED and not known.peer and known.shutdown != _SHUT_DOWN:
            (found.unsent,) = struct.unpack("i", fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4)))

    def _read_datagram(self, handle: sockets.Handle, found: _Found, table: Table) -> None:
        if self._groups_of is not table:
            self._groups_of, self._groups = table, multicast.groups(table.tid)
        found.memberships = multicast.memberships(handle, self._groups)
        (unsent,) = struct.unpack("i", fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4)))
        if unsent and handle.protocol == socket.IPPROTO_UDP:
            found.troubles.append("a message that was begun and not sent (UDP_CORK, MSG_MORE) cannot be copied")

    def _read_tcp(self, inode: int, handle: sockets.Handle, found: _Found) -> None:
        found.tcp_state = tcp.state(handle)
        if found.listening:
            waiting, found.backlog = tcp.accept_queue(handle)
            found.waiting = waiting
            return
        if found.tcp_state == _ESTABLISHED and found.peer is not None and _host(found.local) == _host(found.peer):
            found.acknowledged = tcp.acknowledged(handle)
        (found.unsent,) = struct.unpack("i", fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4)))
        # TCP_REPAIR only where it can be of use: if vcsimg is killed in these 50 µs, the connection stays in that mode.
        if found.tcp_state == _ESTABLISHED and self._repair and (self._leaving or _on_one_host(found)):
            try:
                found.connection = self._measured_once(inode, tcp.connection(handle))
            except PermissionError:
                self._repair = False

    def _measured_once(self, inode: int, connection: tcp.Connection) -> tcp.Connection:
        """The offset of the timestamps never changes, but measuring it has an error: the first measurement counts."""
        if len(self._offsets) > _REMEMBERED:
            self._offsets.clear()
        return connection._replace(timestamp=self._offsets.setdefault(inode, connection.timestamp))

    def _read_queue(self, carrier: int, ready: int, handle: sockets.Handle, found: _Found, table: Table) -> None:
        self._ended = bool(ready & select.POLLRDHUP)
        if self._ended and handle.family in _INTERNET and (found.tcp_state in _RECEIVING or handle.type == socket.SOCK_DGRAM):
            # No end of the data has come: it was shutdown(2).
            found.shut = _SHUT_DOWN if ready & select.POLLHUP else _SHUT_TO_READ
        found.over = self._ended and found.tcp_state == _CLOSE
        if ready & select.POLLERR:
            found.troubles.append("it has an error that was not fetched yet, which reading would take away")
            return
        if ready & select.POLLPRI and handle.family in _INTERNET and handle.type == socket.SOCK_STREAM:
            try:
                found.messages += ((waiting, []) for waiting in sockets.peek_with_urgent(handle))
                return
            except OSError:
                pass  # before Linux 6.9
        if ready & select.POLLPRI and handle.family != socket.AF_NETLINK:
            found.troubles.append("urgent data that waits in it (MSG_OOB) cannot be copied")
        if not ready & select.POLLIN:
            return
        if handle.family not in _QUIET:
            found.troubles.append("messages that wait in it cannot be copied")
        elif handle.family in _INTERNET and handle.type == socket.SOCK_STREAM:
            (size,) = struct.unpack("i", fcntl.ioctl(handle, termios.FIONREAD, bytes(4)))
            if size:
                data = handle.peek(size)
                found.messages.append((sockets.Waiting(data, None, ()), []))
        else:
            self._walk(carrier, handle, found, table)

    def _walk(self, carrier: int, handle: sockets.Handle, found: _Found, table: Table) -> None:
        """All that waits, by SO_PEEK_OFF: each peek begins where the one before ended."""
        try:
            before = sockets.peek_offset(handle)
            sockets.set_peek_offset(handle, 0)
        except OSError:
            found.troubles.append("messages that wait in it cannot be copied")
            return
        try:
            while True:
                waiting = sockets.peek(handle.fileno())
                try:
                    if not waiting.data and not waiting.fds and (handle.type == socket.SOCK_STREAM or self._is_end(handle, found)):
                        return  # the end of the connection
                    number = len(found.messages)
                    passed = [self._passed(carrier, fd, number, index, table) for index, fd in enumerate(waiting.fds)]
                finally:
                    for fd in waiting.fds:
                        os.close(fd)
                found.messages.append((waiting, passed))
        except BlockingIOError:
            return
        finally:
            sockets.set_peek_offset(handle, before)

    def _is_end(self, handle: sockets.Handle, found: _Found) -> bool:
        """Whether nothing means the end of the connection: else it is a message of no bytes."""
        return handle.type == socket.SOCK_SEQPACKET and (self._ended or len(found.messages) > _MOST_MESSAGES)

    def _passed(self, carrier: int, fd: int, message: int, index: int, table: Table) -> items.Passed:
        """Describe `fd`, a descriptor that was passed to us together with a message that waits in the process's `carrier`."""
        text = os.readlink(f"/proc/self/fd/{fd}")
        where = statx.statx("", fd)
        same = None
        for other in table.descriptors.values():
            if other.text == text and other.same == other.fd and _is_same(fd, table.tid, other.fd):
                same = other.fd
                break
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            position = os.lseek(fd, 0, os.SEEK_CUR)
        except OSError:
            position = 0
        kind = type_of(text, where.mode)
        passed = items.Passed(carrier, message, index, same, kind, text, flags, position, where.device, where.inode)
        data = read_all(fd, where.size) if same is None and kind == "memfd" else None
        if data is None:
            return passed
        content = content_of(data)
        self._contents[content.sha256] = content
        return replace(passed, mode=where.mode, seals=seals_of(fd), content=content.sha256)

    def _shut_down(self, family: int) -> dict[int, int]:
        """What shutdown(2) has ended of UDP sockets. No call on a socket tells that sending has ended; asked when the process runs again."""
        if family not in self._ended_udp:
            try:
                self._ended_udp[family] = inetdiag.shut_down(family)
            except OSError:
                self._ended_udp[family] = {}
        return self._ended_udp[family]

    def _in_words(self, options: sockets.OptionValues) -> tuple[tuple[str, str], ...]:
        """Options as text; a server's sockets mostly have the same."""
        words = self._words.get(options.key)
        if words is None:
            if len(self._words) > _REMEMBERED:
                self._words.clear()
            words = tuple((name, value.hex() if isinstance(value, bytes) else str(value)) for name, value in options)
            self._words[options.key] = words
        return words

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        fd, found = descriptor.fd, self._found.pop(descriptor.fd)
        unix = found.unix
        if found.family in _INTERNET and found.kind == socket.SOCK_DGRAM and found.peer:
            found.shut = (found.shut or 0) | self._shut_down(found.family).get(descriptor.where.inode, 0) or None
        report.add("sockets", _socket(descriptor, found))
        if found.options is not None:
            report.add("sockets", items.Options(fd, self._in_words(found.options)))
        for one in found.memberships:
            joined = items.Membership(fd, one.group.interface, one.group.address, one.exclude, " ".join(one.sources))
            report.add("sockets", joined)
        if found.filter:
            report.add("sockets", items.SocketFilter(fd, found.filter))
        if found.groups:
            report.add("sockets", items.Netlink(fd, found.groups))
        if unix is not None and found.listening:
            report.add("sockets", *(items.WaitingConnection(fd, peer) for peer in unix.waiting))
        report.add("sockets", *(items.WaitingConnection(fd, 0) for _ in range(found.waiting)))
        if found.connection is not None:
            report.add("sockets", items.Tcp(fd, *found.connection))
        elif found.unsent:
            report.add("sockets", items.Unsent(fd, found.unsent))
            if found.family == socket.AF_UNIX:
                found.troubles.append("what it has sent waits in a connection that was not accepted yet, and cannot be read")
            elif self._leaving or _on_one_host(found):
                found.troubles.append(
                    f"{found.unsent} bytes that were sent and not acknowledged cannot be read without CAP_NET_ADMIN"
                )
        for waiting, passed in found.messages:
            report.add(
                "sockets", items.Message(fd, waiting.data, waiting.source, len(passed), waiting.sender, waiting.urgent or None)
            )
            report.add("sockets", *passed)
            for carried in passed:
                if carried.content is not None:
                    report.contents[carried.content] = self._contents[carried.content]
        if found.family not in _QUIET and found.family != socket.AF_NETLINK:
            found.troubles.append("sockets of this family have state that cannot be read")
        for trouble in found.troubles:
            report.unsaved(f"fd {fd}", trouble)


def _all_sockets(tid: int) -> int:
    """How many sockets there are in the network namespace of a thread; 0 if that cannot be known."""
    try:
        return int(procfs.read(tid, "net/sockstat").split(None, 3)[2])
    except (OSError, ValueError, IndexError):
        return 0


def _host(address: bytes) -> bytes:
    """The IP address in a struct sockaddr."""
    return address[8:24] if len(address) > _SOCKADDR_IN else address[4:8]


def _leads_to(address: bytes, inode: int, tid: int) -> bool:
    """Whether the path of a unix socket's address leads to it; a relative one counts from the current directory, which may have been another."""
    path = os.fsdecode(address[2:].partition(b"\0")[0])
    try:
        return os.lstat(f"/proc/{tid}/root{path}" if path.startswith("/") else f"/proc/{tid}/cwd/{path}").st_ino == inode
    except OSError:
        return False


def _on_one_host(found: _Found) -> bool:
    """Whether both ends of a connection have the same address, as those have that can both be in a capture."""
    return found.peer is not None and sockets.host_of(found.local) == sockets.host_of(found.peer)


def _is_same(own: int, pid: int, fd: int) -> bool:
    try:
        return kcmp.same(os.getpid(), pid, kcmp.FILE, own, fd)
    except OSError:
        return False


def _socket(descriptor: Descriptor, found: _Found) -> items.Socket:
    unix = found.unix
    if unix is not None:
        state = unix.state
    elif found.tcp_state is not None:
        state = found.tcp_state
    else:
        state = _LISTEN if found.listening else _ESTABLISHED if found.peer else _CLOSE
    return items.Socket(
        fd=descriptor.fd,
        inode=descriptor.where.inode,
        family=found.family,
        type=found.kind,
        protocol=found.protocol,
        state=state,
        shutdown=unix.shutdown if unix else _SHUT_DOWN if found.over else found.shut,
        local=sockets.address_text(found.local),
        local_raw=found.local,
        peer=sockets.address_text(found.peer) if found.peer else None,
        peer_raw=found.peer,
        peer_inode=unix.peer if unix else None,
        bound_device=statx.decode_device(unix.bound[0]) if unix and unix.bound else None,
        bound_inode=unix.bound[1] if unix and unix.bound else None,
        backlog=unix.backlog if unix and found.listening else found.backlog,
        peer_pid=found.peer_pid,
        acknowledged=found.acknowledged,
        unlinked=found.unlinked,
    )
