"""Sockets: made alone, in pairs, or listening, in a first step; in a second, when all are there, what waits in them is put in."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.thread import Call
from vcsimg.image.snapshot import Process
from vcsimg.kernel import inetdiag
from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR
from vcsimg.restore import addresses
from vcsimg.restore.context import Context
from vcsimg.restore.keeping import make_kept
from vcsimg.restore.memberships import restore_memberships
from vcsimg.restore.socket_options import note_on_options, options, set_options
from vcsimg.restore.socket_queues import Queue, everything, is_finishing, other_end
from vcsimg.restore.unix import UnixMaker, connect_datagrams, place_in_line

_ESTABLISHED, _CLOSE, _CLOSE_WAIT, _LISTEN = 1, 7, 8, 10
_RCV, _SND = 1, 2
_TIMED = {
    "so_rcvtimeo": frozenset(NR[name] for name in ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4")),
    "so_sndtimeo": frozenset(NR[name] for name in ("write", "writev", "sendto", "sendmsg", "sendmmsg", "connect")),
}
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_FAMILIES = (socket.AF_UNIX, *_INTERNET, socket.AF_NETLINK)


def make_socket(context: Context, process: Process, file: File) -> int | None:
    """A socket without what waits in it. None: its other end was outside, and it was standard input, output or error."""
    found = next((one for one in select(process.section("sockets"), items.Socket) if one.fd == file.fd), None)
    what = f"process {process.pid} fd {file.fd} (socket)"
    if found is None:
        raise RestoreError(what, "it was not captured")
    if found.family not in _FAMILIES:
        raise RestoreError(what, f"sockets of family {found.family} cannot be restored")
    if found.inode not in context.sockets:
        maker = (
            UnixMaker if found.family == socket.AF_UNIX else _NetlinkMaker if found.family == socket.AF_NETLINK else _InternetMaker
        )
        made = maker(context, process, file, found, what).make()
        if made is None:
            return None
        context.sockets[found.inode] = context.own(made)
    return os.dup(context.sockets[found.inode])


class _InternetMaker:
    """ip(7), ipv6(7)."""

    def __init__(self, context: Context, process: Process, file: File, found: items.Socket, what: str) -> None:
        self._context = context
        self._process = process
        self._found = found
        self._what = what

    def make(self) -> int | None:
        found = self._found
        if found.type == socket.SOCK_STREAM and found.state not in (_CLOSE, _LISTEN):
            return self._connection()
        if found.type == socket.SOCK_STREAM and found.state == _CLOSE and found.shutdown:
            return self._over()
        if found.type == socket.SOCK_RAW:
            raise RestoreError(self._what, "raw sockets cannot be restored")
        fd = _new(found)
        set_options(self._process, fd, found, first=True)
        if found.local_raw and addresses.port_of(found.local_raw):
            if found.type == socket.SOCK_STREAM:
                # Connections of before that are not quite over do not keep a listener from its port; the option itself is set later.
                addresses.set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._bind(fd, found.local_raw)
            except OSError as error:
                raise RestoreError(self._what, f"its address {found.local} cannot be had: {error.strerror}") from None
        if found.state == _LISTEN and found.type == socket.SOCK_STREAM:
            addresses.listen(fd, found.backlog)
        return fd

    def _bind(self, fd: int, address: bytes) -> None:
        """What the last owner left behind of its connections may be in the way."""
        try:
            addresses.bind(fd, address)
        except OSError:
            if not inetdiag.destroy_abandoned(self._found.family, addresses.port_of(address)):
                raise
            addresses.bind(fd, address)

    def _connection(self) -> int | None:
        found = self._found
        other = other_end(self._context, found)
        if other is not None:
            return self._loopback(other[1])
        if self._waits_to_be_accepted():
            return self._unaccepted()
        policy = self._context.options.tcp
        if policy == "keep":
            return make_kept(self._context, self._process, found, self._what)
        closing = policy == "close" or found.state == _CLOSE_WAIT
        self._context.notes.append(f"{self._what}: the connection to {found.peer} {'is closed' if closing else 'is reset'}")
        ours, theirs = _connected(found.family)
        Queue(self._context, self._process, found, {}).fill(theirs.fileno())
        if not closing:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        return ours.detach()

    def _over(self) -> int:
        """A connection that both ends have ended."""
        ours, theirs = _connected(self._found.family)
        Queue(self._context, self._process, self._found, {}).fill(theirs.fileno())
        theirs.shutdown(socket.SHUT_WR)
        ours.shutdown(socket.SHUT_WR)
        theirs.close()
        return ours.detach()

    def _loopback(self, other: items.Socket) -> int:
        """A connection both of whose ends are in the image, with its addresses if they can be had."""
        found = self._found
        if not found.local_raw or not found.peer_raw:
            raise HostileImage(self._what, "a connection without addresses")
        try:
            try:
                ours, theirs = self._between(found, other)
            except OSError:
                ports = (addresses.port_of(found.local_raw), addresses.port_of(found.peer_raw))
                if sum(inetdiag.destroy_abandoned(family, port) for port in ports for family in {found.family, other.family}) == 0:
                    raise
                ours, theirs = self._between(found, other)
        except OSError as error:
            self._context.notes.append(
                f"{self._what}: the connection has other addresses than {found.local} and {found.peer}: {error.strerror}"
            )
            ours, theirs = (one.detach() for one in _connected(found.family))
        self._context.sockets[other.inode] = self._context.own(theirs)
        return ours

    def _between(self, one: items.Socket, other: items.Socket) -> tuple[int, int]:
        """Both of them with their addresses, connected: whichever of them has a listening socket in the image is the one that was accepted."""
        assert one.local_raw is not None
        assert one.peer_raw is not None
        listener = self._image_listener(other)
        if listener is None and self._image_listener(one) is not None:
            theirs, ours = self._between(other, one)
            return ours, theirs
        temporary = None
        fd = _new(one)
        try:
            if listener is None:
                listener = temporary = _new(other)
                addresses.set_number(temporary, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                addresses.bind(temporary, other.local_raw or b"")
                addresses.listen(temporary, 1)
            addresses.set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            addresses.bind(fd, one.local_raw)
            with suppress(BlockingIOError):
                addresses.connect(fd, one.peer_raw)
            return fd, addresses.accept(listener)
        except OSError:
            os.close(fd)
            raise
        finally:
            if temporary is not None:
                os.close(temporary)

    def _waits_to_be_accepted(self) -> bool:
        """Whether it is a connection with a listening socket of the image, which has not accepted it yet, and nothing was sent over it."""
        found = self._found
        section = self._process.section("sockets")
        sent = found.acknowledged != 0 or any(one.fd == found.fd for one in select(section, items.Unsent))
        sent = sent or any(one.fd == found.fd and one.sending for one in select(section, items.Tcp))
        if sent or found.state != _ESTABLISHED or not found.peer_raw:
            return False
        return any(
            _listens_at(one, found.peer_raw) and waiting.fd == one.fd
            for process, one in everything(self._context)
            for waiting in select(process.section("sockets"), items.WaitingConnection)
        )

    def _unaccepted(self) -> int:
        """Connected; the other end waits in line."""
        found = self._found
        assert found.local_raw is not None
        assert found.peer_raw is not None
        fd = _new(found)
        try:
            addresses.set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._bind(fd, found.local_raw)
            except OSError as error:
                self._context.notes.append(f"{self._what}: the connection has another address than {found.local}: {error.strerror}")
            with suppress(BlockingIOError):
                addresses.connect(fd, found.peer_raw)
        except BaseException:
            os.close(fd)
            raise
        self._context.unaccepted += 1
        return fd

    def _image_listener(self, wanted: items.Socket) -> int | None:
        """The listening socket from which a connection may have been accepted."""
        for _, one in everything(self._context):
            if one.family == wanted.family and one.inode in self._context.sockets and _listens_at(one, wanted.local_raw or b""):
                return self._context.sockets[one.inode]
        return None


def _listens_at(one: items.Socket, address: bytes) -> bool:
    if one.state != _LISTEN or one.family not in _INTERNET or not one.local_raw or not address:
        return False
    anywhere = not (one.local_raw[8:24] if one.family == socket.AF_INET6 else one.local_raw[4:8]).strip(b"\0")
    return addresses.endpoint(one.local_raw) == addresses.endpoint(address) or (anywhere and one.local_raw[2:4] == address[2:4])


class _NetlinkMaker:
    """netlink(7)."""

    def __init__(self, context: Context, process: Process, file: File, found: items.Socket, what: str) -> None:
        self._context = context
        self._process = process
        self._found = found
        self._what = what

    def make(self) -> int:
        fd = _new(self._found)
        groups = 0
        for netlink in select(self._process.section("sockets"), items.Netlink):
            if netlink.fd == self._found.fd:
                groups = sum(1 << group - 1 for group in netlink.groups if 0 < group <= 32)
        port = int.from_bytes((self._found.local_raw or bytes(8))[4:8], "little")
        if not port and not groups:
            return fd
        try:
            addresses.bind(fd, struct.pack("<HHII", socket.AF_NETLINK, 0, port, groups))
        except OSError:
            addresses.bind(fd, struct.pack("<HHII", socket.AF_NETLINK, 0, 0, groups))
            self._context.notes.append(f"{self._what}: its address {port} is in use, it has another one")
        return fd


def order(context: Context, found: items.Socket) -> tuple[int, int]:
    """Which sockets are made first: those that listen; then those that are bound; those that wait to be accepted last, and in line."""
    line = place_in_line(context, found) if found.family == socket.AF_UNIX else None
    if line is not None:
        return 3, line
    connection = found.family in _INTERNET and found.type == socket.SOCK_STREAM and found.state not in (_CLOSE, _LISTEN)
    return (0 if found.state == _LISTEN else 2 if connection or not addresses.is_bound(found) else 1), 0


def finish_sockets(context: Context, made: Mapping[tuple[int, int], int | None]) -> None:
    """When all open files are there: what waits, what is shut down, options. Raises RestoreError."""
    sockets: dict[int, tuple[Process, items.Socket]] = {}
    for process, found in everything(context):
        if found.inode in context.sockets:
            sockets.setdefault(found.inode, (process, found))
    for process, found in sockets.values():
        if found.family != socket.AF_NETLINK and found.state != _LISTEN and (other_end(context, found) or _is_datagram(found)):
            Queue(context, process, found, made).fill()
    _note_lost_connections(context)
    for inode, (process, found) in sockets.items():
        fd = context.sockets[inode]
        if _is_datagram(found) and found.family == socket.AF_UNIX:
            connect_datagrams(context, process, found)
        elif _is_datagram(found) and found.peer_raw:
            with suppress(OSError):
                addresses.connect(fd, found.peer_raw)
        _shut_down(fd, found)
    for inode, (process, found) in sockets.items():
        if inode not in context.kept:
            set_options(process, context.sockets[inode], found, first=False)
            note_on_options(process, context.sockets[inode], found, context.notes)
        if _is_datagram(found):
            what = f"process {process.pid} fd {found.fd} (socket)"
            restore_memberships(process, context.sockets[inode], found, what, context.notes)
        _note_waits(context, process, found)


def _note_lost_connections(context: Context) -> None:
    waiting = sum(
        1
        for process, found in everything(context)
        if found.family in _INTERNET
        for one in select(process.section("sockets"), items.WaitingConnection)
        if one.fd == found.fd
    )
    if waiting > context.unaccepted:
        context.notes.append(f"{waiting - context.unaccepted} TCP connections that were not accepted yet are gone")


def _note_waits(context: Context, process: Process, found: items.Socket) -> None:
    """Calls that wait at most for SO_RCVTIMEO or SO_SNDTIMEO begin again; when they began is not known."""
    values = options(process, found)
    for name, numbers in _TIMED.items():
        if not bytes.fromhex(values.get(name, "")).strip(b"\0"):
            continue
        for thread in process.threads:
            if thread.registers["rdi"] == found.fd and any(one.number in numbers for one in select(thread.records, Call)):
                context.notes.append(f"thread {thread.tid} waits for all of {name.upper()} again")


def _is_datagram(found: items.Socket) -> bool:
    return found.type == socket.SOCK_DGRAM and found.family in (socket.AF_UNIX, *_INTERNET)


def _shut_down(fd: int, found: items.Socket) -> None:
    closed = (found.shutdown or 0) | (_SND if is_finishing(found) else 0)
    handle = socket.socket(fileno=os.dup(fd))
    try:
        for bit, how in ((_SND, socket.SHUT_WR), (_RCV, socket.SHUT_RD)):
            if closed & bit:
                with suppress(OSError):
                    handle.shutdown(how)
    finally:
        handle.close()


def _new(found: items.Socket) -> int:
    return call(NR["socket"], found.family, found.type | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, found.protocol)


def _connected(family: int) -> tuple[socket.socket, socket.socket]:
    """A connection of this machine with itself."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    ours = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen(1)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    except OSError:
        ours.close()
        raise
    finally:
        listener.close()
    return ours, theirs
