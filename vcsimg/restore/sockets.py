"""Sockets: made alone, in pairs, or listening, in a first step; in a second, when all are there, what waits in them is put in."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.kernel.calls import call
from vcsimg.kernel.sockets import options_of
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.context import Context
from vcsimg.restore.pipes import standard

_ESTABLISHED, _CLOSE, _CLOSE_WAIT, _LISTEN = 1, 7, 8, 10
_RCV, _SND = 1, 2
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_FAMILIES = (socket.AF_UNIX, *_INTERNET, socket.AF_NETLINK)
_ROOM = 8 << 20

_FIRST = frozenset(("so_reuseaddr", "so_reuseport", "ipv6_v6only", "ip_freebind", "ipv6_freebind", "so_bindtodevice", "so_mark"))
"""Options that bind(2) looks at."""
_NEVER = frozenset(
    ("so_peek_off", "so_buf_lock", "so_sndbuf", "so_rcvbuf", "tcp_ulp", "tcp_save_syn", "tcp_fastopen", "so_zerocopy")
)
"""Not set as the others: buffers are set last and halved; the rest concerns state that is not restored."""


def make_socket(context: Context, process: Process, file: File) -> int | None:
    """A socket without what waits in it. None: its other end was outside, and it was standard input, output or error."""
    found = next((one for one in select(process.section("sockets"), items.Socket) if one.fd == file.fd), None)
    what = f"process {process.pid} fd {file.fd} (socket)"
    if found is None:
        raise RestoreError(what, "it was not captured")
    if found.family not in _FAMILIES:
        raise RestoreError(what, f"sockets of family {found.family} cannot be restored")
    if found.inode not in context.sockets:
        made = _Maker(context, process, file, found, what).make()
        if made is None:
            return None
        context.sockets[found.inode] = context.own(made)
    return os.dup(context.sockets[found.inode])


class _Maker:
    def __init__(self, context: Context, process: Process, file: File, found: items.Socket, what: str) -> None:
        self._context = context
        self._process = process
        self._file = file
        self._found = found
        self._what = what

    def make(self) -> int | None:
        if self._found.family == socket.AF_UNIX:
            return self._unix()
        if self._found.family == socket.AF_NETLINK:
            return self._netlink()
        return self._internet()

    def _new(self) -> int:
        return call(
            NR["socket"], self._found.family, self._found.type | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, self._found.protocol
        )

    # unix(7)

    def _unix(self) -> int | None:
        found = self._found
        if found.state == _LISTEN:
            fd = self._new()
            self._bind(fd)
            _listen(fd, found.backlog)
            return fd
        peer = self._peer()
        if peer is not None:
            return self._pair(peer)
        connected = found.state == _ESTABLISHED and found.type != socket.SOCK_DGRAM
        if not connected and not found.peer_inode:
            fd = self._new()
            self._bind(fd)
            if found.type == socket.SOCK_DGRAM and found.peer_raw and len(found.peer_raw) > 2:
                with suppress(OSError):  # whoever was there may be gone: then sending fails, as it would have
                    _connect(fd, found.peer_raw)
            return fd
        listener = self._waits_at()
        if listener is not None:
            fd = self._new()
            _connect(fd, listener)
            return fd
        ended = (found.shutdown or 0) & (_RCV | _SND) == _RCV | _SND
        if not ended:
            if standard(self._process, self._file):
                return None
            if self._context.options.outside == "fail":
                raise RestoreError(self._what, "its other end belongs to no process of the image", option="--outside close")
        ours, theirs = socket.socketpair(socket.AF_UNIX, found.type)
        _fill(self._context, self._process, found, theirs.fileno(), {})
        theirs.close()
        return ours.detach()

    def _peer(self) -> items.Socket | None:
        """The other end, if the image has it."""
        if not self._found.peer_inode:
            return next((one for _, one in everything(self._context) if one.peer_inode == self._found.inode), None)
        return next((one for _, one in everything(self._context) if one.inode == self._found.peer_inode), None)

    def _pair(self, peer: items.Socket) -> int:
        found = self._found
        if found.type == socket.SOCK_DGRAM and (_is_bound(peer) or _is_bound(found)):
            fd = self._new()
            self._bind(fd)
            if peer.inode in self._context.sockets and _is_bound(peer) and found.peer_raw:
                _connect(fd, found.peer_raw)
            elif found.peer_inode:
                raise RestoreError(self._what, "the socket that it is connected to comes later")
            return fd
        if _is_bound(found) or _is_bound(peer):
            self._context.notes.append(f"{self._what}: the connection has lost its addresses")
        ours, theirs = socket.socketpair(socket.AF_UNIX, found.type)
        self._context.sockets[peer.inode] = self._context.own(theirs.detach())
        return ours.detach()

    def _waits_at(self) -> bytes | None:
        """The address of the listening socket of the image at which this one waits to be accepted."""
        for process, one in everything(self._context):
            for waiting in select(process.section("sockets"), items.WaitingConnection):
                if waiting.fd == one.fd and waiting.peer_inode == self._found.inode and one.inode in self._context.sockets:
                    return one.local_raw
        return None

    def _bind(self, fd: int) -> None:
        found = self._found
        address = found.local_raw
        if not _is_bound(found) or address is None:
            return
        path = _path_of(address)
        if path is not None:
            self._clear_path(path)
            if not path.startswith("/"):
                raise RestoreError(self._what, f"its path {path!r} begins at a folder that is not known")
            address = address[:2] + os.fsencode(self._context.root + path) + b"\0"
            if len(address) > 110:
                # sun_path is short, and the way into the mount namespace makes it longer: ours is the same place in nearly all cases.
                address = found.local_raw or b""
        try:
            _bind_to(fd, address)
        except OSError as error:
            raise RestoreError(self._what, f"its address {found.local} cannot be had: {error.strerror}") from None

    def _clear_path(self, path: str) -> None:
        """A socket file that nobody listens on any more is in the way."""
        place = self._context.root + path
        probe = socket.socket(socket.AF_UNIX, self._found.type)
        try:
            probe.connect(place if len(place) < 108 else path)
        except FileNotFoundError:
            return
        except OSError:
            facts = os.stat(place)
            if facts.st_ino == self._found.bound_inode or self._found.bound_inode is None:
                with suppress(OSError):
                    os.unlink(place)
            return
        finally:
            probe.close()
        raise RestoreError(self._what, f"another process listens at {path}")

    # ip(7), ipv6(7)

    def _internet(self) -> int | None:
        found = self._found
        if found.type == socket.SOCK_STREAM and found.state not in (_CLOSE, _LISTEN):
            return self._connection()
        if found.type == socket.SOCK_RAW:
            raise RestoreError(self._what, "raw sockets cannot be restored")
        fd = self._new()
        set_options(self._process, fd, found, first=True)
        if found.local_raw and _port(found.local_raw):
            tcp = found.type == socket.SOCK_STREAM
            if tcp:
                # Connections of before that are not quite over do not keep a listener from its port.
                _set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                _bind_to(fd, found.local_raw)
            except OSError as error:
                raise RestoreError(self._what, f"its address {found.local} cannot be had: {error.strerror}") from None
            if tcp and not _option(self._process, found, "so_reuseaddr"):
                _set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if found.state == _LISTEN and found.type == socket.SOCK_STREAM:
            _listen(fd, found.backlog)
        elif found.peer_raw:
            _connect(fd, found.peer_raw)
        return fd

    def _connection(self) -> int | None:
        found = self._found
        for _, one in everything(self._context):
            if one.inode != found.inode and one.local_raw == found.peer_raw and one.peer_raw == found.local_raw:
                return self._loopback(one)
        policy = self._context.options.tcp
        if policy == "keep":
            raise RestoreError(self._what, f"its connection to {found.peer} cannot be gone on with", option="--tcp reset")
        closing = policy == "close" or found.state == _CLOSE_WAIT
        self._context.notes.append(f"{self._what}: the connection to {found.peer} {'is closed' if closing else 'is reset'}")
        ours, theirs = _connected(found.family)
        _fill(self._context, self._process, found, theirs.fileno(), {})
        if not closing:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        return ours.detach()

    def _loopback(self, other: items.Socket) -> int:
        """A connection both of whose ends are in the image, with its addresses."""
        found = self._found
        if not found.local_raw or not found.peer_raw:
            raise HostileImage(self._what, "a connection without addresses")
        listener = socket.socket(found.family, socket.SOCK_STREAM)
        ours = socket.socket(found.family, socket.SOCK_STREAM)
        try:
            for one in (listener, ours):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind_to(listener.fileno(), found.peer_raw)
            listener.listen(1)
            _bind_to(ours.fileno(), found.local_raw)
            _connect(ours.fileno(), found.peer_raw)
            theirs, _ = listener.accept()
        except OSError as error:
            ours.close()
            raise RestoreError(self._what, f"{found.local} to {found.peer}: {error.strerror}") from None
        finally:
            listener.close()
        self._context.sockets[other.inode] = self._context.own(theirs.detach())
        return ours.detach()

    # netlink(7)

    def _netlink(self) -> int:
        fd = self._new()
        groups = 0
        for netlink in select(self._process.section("sockets"), items.Netlink):
            if netlink.fd == self._found.fd:
                groups = sum(1 << group - 1 for group in netlink.groups if 0 < group <= 32)
        if self._found.local_raw:
            _bind_to(fd, struct.pack("<HHII", socket.AF_NETLINK, 0, 0, groups))
        return fd


def everything(context: Context) -> Iterator[tuple[Process, items.Socket]]:
    """All sockets of the image."""
    for process in context.snapshot.processes:
        for found in select(process.section("sockets"), items.Socket):
            yield process, found


def order(found: items.Socket) -> int:
    """Which sockets are made first: connections, which need a port that a listener may have too; then those that are connected to."""
    if found.family in _INTERNET and found.type == socket.SOCK_STREAM and found.state not in (_CLOSE, _LISTEN):
        return 0
    return 1 if found.state == _LISTEN or _is_bound(found) else 2


def finish_sockets(context: Context, made: Mapping[tuple[int, int], int | None]) -> None:
    """When all open files are there: what waits, what is shut down, options. Raises RestoreError."""
    done: set[int] = set()
    pairs = [(process, found) for process, found in everything(context) if found.inode in context.sockets]
    for process, found in pairs:
        if found.inode not in done:
            done.add(found.inode)
            sender = _sender(context, found)
            if sender is not None:
                _fill(context, process, found, sender, made)
    for process, found in pairs:
        fd = context.sockets[found.inode]
        if found.inode in done:
            done.discard(found.inode)
            handle = socket.socket(fileno=os.dup(fd))
            try:
                for bit, how in ((_SND, socket.SHUT_WR), (_RCV, socket.SHUT_RD)):
                    if (found.shutdown or 0) & bit:
                        with suppress(OSError):
                            handle.shutdown(how)
            finally:
                handle.close()
            set_options(process, fd, found, first=False)


def _sender(context: Context, found: items.Socket) -> int | None:
    """Through which socket of ours something can be sent to one."""
    for _, one in everything(context):
        linked = one.inode == found.peer_inode or one.peer_inode == found.inode
        if found.family in _INTERNET:
            linked = bool(found.peer_raw) and one.local_raw == found.peer_raw and one.peer_raw == found.local_raw
        if linked and one.inode in context.sockets and one.inode != found.inode:
            return context.sockets[one.inode]
    if found.type == socket.SOCK_DGRAM and _is_bound(found) and found.local_raw and found.family != socket.AF_NETLINK:
        sender = socket.socket(found.family, socket.SOCK_DGRAM)
        _connect(sender.fileno(), found.local_raw)
        return context.own(sender.detach())
    return None


def _fill(context: Context, process: Process, found: items.Socket, sender: int, made: Mapping[tuple[int, int], int | None]) -> None:
    """Send what waits in a socket to it."""
    section = process.section("sockets")
    messages = [message for message in select(section, items.Message) if message.fd == found.fd]
    if not messages:
        return
    what = f"process {process.pid} fd {found.fd} (socket)"
    passed = [one for one in select(section, items.Passed) if one.fd == found.fd]
    handle = socket.socket(fileno=os.dup(sender))
    try:
        before = handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        for number, message in enumerate(messages):
            fds = []
            for one in passed:
                if one.message == number:
                    own = made.get((process.pid, one.same)) if one.same is not None else None
                    if own is None:
                        raise RestoreError(what, f"descriptor {one.index} of a message ({one.path}) is open nowhere else")
                    fds.append(own)
            if message.source and found.type == socket.SOCK_DGRAM and len(message.source) > 2:
                context.notes.append(f"{what}: a message that waits comes from another address than it did")
            _send(handle, message.data, fds, found, what)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before // 2)
    except OSError as error:
        raise RestoreError(what, f"what waited in it cannot be put in: {error.strerror}") from None
    finally:
        handle.close()


def _send(handle: socket.socket, data: bytes, fds: list[int], found: items.Socket, what: str) -> None:
    handle.setblocking(False)
    done = 0
    while done < len(data) or not data:
        try:
            sent = socket.send_fds(handle, [data[done:]], fds) if fds else handle.send(data[done:])
        except BlockingIOError:
            raise RestoreError(what, f"{len(data)} bytes that waited in it do not fit") from None
        fds = []
        done += sent
        if found.type != socket.SOCK_STREAM or not data:
            return


def set_options(process: Process, fd: int, found: items.Socket, *, first: bool) -> None:
    """Options that differ from what a new socket has; `first`: those that matter to bind(2)."""
    known = {option.name: option for option in options_of(found.family, found.protocol)}
    for options in select(process.section("sockets"), items.Options):
        if options.fd != found.fd:
            continue
        for name, text in options.values:
            option = known.get(name)
            if option is None or (name in _FIRST) is not first:
                continue
            if name in ("so_sndbuf", "so_rcvbuf"):
                with suppress(OSError):
                    if _number_of(fd, option.level, option.number) != int(text):
                        _set_number(fd, option.level, option.number, int(text) // 2)
                continue
            if name in _NEVER:
                continue
            with suppress(OSError, ValueError):
                if option.size:
                    value = bytes.fromhex(text)
                    if value.strip(b"\0"):
                        buffer = ctypes.create_string_buffer(value, len(value))
                        call(NR["setsockopt"], fd, option.level, option.number, ctypes.addressof(buffer), len(value))
                elif _number_of(fd, option.level, option.number) != int(text):
                    _set_number(fd, option.level, option.number, int(text))


def _option(process: Process, found: items.Socket, name: str) -> int:
    for options in select(process.section("sockets"), items.Options):
        if options.fd == found.fd:
            return int(dict(options.values).get(name, "0"))
    return 0


def _number_of(fd: int, level: int, number: int) -> int:
    value, length = ctypes.c_int32(), ctypes.c_uint32(4)
    call(NR["getsockopt"], fd, level, number, ctypes.addressof(value), ctypes.addressof(length))
    return value.value


def _set_number(fd: int, level: int, number: int, value: int) -> None:
    word = ctypes.c_int32(value)
    call(NR["setsockopt"], fd, level, number, ctypes.addressof(word), 4)


def _listen(fd: int, backlog: int | None) -> None:
    call(NR["listen"], fd, backlog if backlog is not None else socket.SOMAXCONN)


def _address(raw: bytes) -> ctypes.Array[ctypes.c_char]:
    if not 2 <= len(raw) <= 4096:
        raise HostileImage("socket", f"an address of {len(raw)} bytes")
    return ctypes.create_string_buffer(raw, len(raw))


def _bind_to(fd: int, raw: bytes) -> None:
    address = _address(raw)
    call(NR["bind"], fd, ctypes.addressof(address), len(raw))


def _connect(fd: int, raw: bytes) -> None:
    address = _address(raw)
    call(NR["connect"], fd, ctypes.addressof(address), len(raw))


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


def _is_bound(found: items.Socket) -> bool:
    if found.family == socket.AF_UNIX:
        return bool(found.local_raw) and len(found.local_raw or b"") > 2
    return bool(found.local_raw) and bool(_port(found.local_raw or b""))


def _path_of(raw: bytes) -> str | None:
    """The path of a unix socket's address; None: an abstract name."""
    return os.fsdecode(raw[2:].partition(b"\0")[0]) if raw[2:3] != b"\0" else None


def _port(raw: bytes) -> int:
    return int.from_bytes(raw[2:4], "big")
