"""What waits in sockets: sent again by whoever is at the other end, or by a socket with the address that it came from."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from vcsimg.errors import RestoreError
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Directory
from vcsimg.image.snapshot import Process
from vcsimg.kernel.sockets import Handle
from vcsimg.restore import addresses, paths
from vcsimg.restore.context import Context

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_ROOM = 8 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MEMINFO, _DROPS = 32, 33, 55, 8
_FINISHING = frozenset((4, 5, 6, 9, 11))
"""TCP states in which the end of the data was sent: FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING (net/tcp_states.h)."""


def everything(context: Context) -> Iterator[tuple[Process, items.Socket]]:
    """All sockets of the image."""
    for process in context.snapshot.processes:
        for found in select(process.section("sockets"), items.Socket):
            yield process, found


def is_finishing(found: items.Socket) -> bool:
    return found.type == socket.SOCK_STREAM and found.family in _INTERNET and found.state in _FINISHING


def other_end(context: Context, found: items.Socket) -> tuple[Process, items.Socket] | None:
    """The other end of a connection, if the image has it."""
    for process, one in everything(context):
        if one.inode == found.inode or (one.family in _INTERNET) != (found.family in _INTERNET):
            continue
        if found.family == socket.AF_UNIX:
            linked = one.family == socket.AF_UNIX and (one.inode == found.peer_inode or one.peer_inode == found.inode)
        else:
            linked = one.type == found.type and _are_ends(found, one)
        if linked:
            return process, one
    return None


def _are_ends(found: items.Socket, one: items.Socket) -> bool:
    """Whether two sockets of the internet families are connected with one another."""
    if not (found.local_raw and found.peer_raw and one.local_raw and one.peer_raw):
        return False
    ends = [addresses.endpoint(raw) for raw in (found.local_raw, found.peer_raw, one.peer_raw, one.local_raw)]
    return ends[:2] == ends[2:]


class Queue:
    """What waits in a socket. `made`: descriptors of ours by process and lowest descriptor there."""

    def __init__(self, context: Context, process: Process, found: items.Socket, made: Mapping[tuple[int, int], int | None]) -> None:
        self._context = context
        self._process = process
        self._found = found
        self._made = made
        self._what = f"process {process.pid} fd {found.fd} (socket)"
        section = process.section("sockets")
        self._messages = [message for message in select(section, items.Message) if message.fd == found.fd]
        self._passed = [one for one in select(section, items.Passed) if one.fd == found.fd]

    def fill(self, sender: int | None = None) -> None:
        """Put it in, through `sender` or whoever suits. Raises RestoreError."""
        other = other_end(self._context, self._found)
        messages = self._messages
        if other is not None and self._found.family in _INTERNET and self._found.type == socket.SOCK_STREAM:
            messages = [*messages, *self._on_the_way(*other)]
        if not messages:
            return
        try:
            if (
                sender is None
                and other is not None
                and not (self._found.type == socket.SOCK_DGRAM and addresses.is_bound(self._found))
            ):
                sender = self._context.sockets.get(other[1].inode)
            with_sources = sender is None and self._found.type == socket.SOCK_DGRAM
            for number, message in enumerate(messages):
                through = self._source(message) if with_sources else sender
                if through is None:
                    raise RestoreError(self._what, "nobody is there who could send what waited in it")
                self._send(through, number, message, named=with_sources)
        except OSError as error:
            raise RestoreError(self._what, f"what waited in it cannot be put in: {error.strerror}") from None

    def _on_the_way(self, process: Process, other: items.Socket) -> Iterator[items.Message]:
        """Bytes that the other end of a TCP connection had sent, or was about to, and that had not arrived."""
        section, own = process.section("sockets"), self._process.section("sockets")
        sent = next((one for one in select(section, items.Tcp) if one.fd == other.fd), None)
        received = next((one for one in select(own, items.Tcp) if one.fd == self._found.fd), None)
        if sent is not None and received is not None:
            missing = (sent.send_sequence - received.receive_sequence) % (1 << 32)
            if 0 < missing <= len(sent.sending):
                yield items.Message(self._found.fd, sent.sending[-missing:], None, 0)
            return
        for unknown in select(section, items.Unsent):
            # The end of the data counts as one byte.
            if unknown.fd == other.fd and unknown.length > is_finishing(other):
                raise RestoreError(self._what, f"{unknown.length} bytes that were on their way to it were not captured")
        if sent is not None and sent.sending:
            raise RestoreError(self._what, "how much of what was sent had arrived was not captured")

    def _source(self, message: items.Message) -> int:
        """A socket with the address that a datagram came from."""
        found, source = self._found, message.source
        for _, one in everything(self._context):
            if source and one.family == found.family and one.type == found.type and one.inode in self._context.sockets:
                same = one.local_raw == source
                if found.family in _INTERNET and not same:
                    same = bool(one.local_raw) and _is_anywhere(one.local_raw or b"") and (one.local_raw or b"")[2:4] == source[2:4]
                if same:
                    return self._context.sockets[one.inode]
        fd = self._context.own(Handle(_new(found)).fd)
        if source and len(source) > 2:
            try:
                if found.family in _INTERNET:
                    addresses.set_number(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    addresses.bind(fd, source)
                else:
                    raise OSError
            except OSError:
                self._context.notes.append(f"{self._what}: a message that waits comes from another address than it did")
        return fd

    def _send(self, through: int, number: int, message: items.Message, *, named: bool) -> None:
        handle = socket.socket(fileno=os.dup(through))
        receiver = self._context.sockets.get(self._found.inode)
        # TCP sends again what was dropped.
        drops = _drops(receiver) if receiver is not None and self._found.type != socket.SOCK_STREAM else None
        try:
            buffer = handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            _grow(handle, socket.SO_SNDBUF, _SO_SNDBUFFORCE)
            if named and receiver is not None:
                _grow_by_number(receiver)
            self._send_all(handle, message, self._descriptors(number), _destination(self._found) if named else None)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer // 2)
        finally:
            handle.close()
        if receiver is not None and drops is not None and _drops(receiver) != drops:
            raise RestoreError(self._what, "there was no room for what waited in it")

    def _send_all(self, handle: socket.socket, message: items.Message, fds: list[int], to: bytes | None) -> None:
        data = message.data
        ancillary: list[tuple[int, int, bytes]] = []
        if fds:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds)))
        if message.sender is not None and len(message.sender) == 3:
            pid, uid, gid = message.sender
            ancillary.append(
                (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("<3i", self._context.pids.get(pid, 0), uid, gid))
            )
        if to is not None:
            self._send_to(handle, message, ancillary, to)
            return
        done = 0
        while done < len(data) or not data:
            try:
                done += self._send_once(handle, data[done:], ancillary, message)
            except BlockingIOError:
                raise RestoreError(self._what, f"{len(data)} bytes that waited in it do not fit") from None
            ancillary = [one for one in ancillary if one[1] != socket.SCM_RIGHTS]
            if self._found.type != socket.SOCK_STREAM or not data:
                return

    def _send_once(
        self,
        handle: socket.socket,
        data: bytes,
        ancillary: list[tuple[int, int, bytes]],
        message: items.Message,
        to: bytes | str | None = None,
    ) -> int:
        address = () if to is None else (to,)
        try:
            return handle.sendmsg([data], ancillary, socket.MSG_DONTWAIT | (socket.MSG_OOB if message.urgent else 0), *address)
        except PermissionError:
            # Only the privileged may send in the name of others; the init of a user namespace is, within that.
            others = [one for one in ancillary if one[1] != socket.SCM_CREDENTIALS]
            if len(others) == len(ancillary) or message.sender is None:
                raise
            pid, uid, gid = message.sender
            if self._context.space.user_namespace:
                try:
                    fds = [fd for one in others for (fd,) in struct.iter_unpack("<i", one[2])]
                    return self._context.space.send(handle.fileno(), data, fds, (pid, uid, gid), to)
                except PermissionError:
                    pass
            self._context.notes.append(f"{self._what}: a message that waits names another sender than it did")
            return handle.sendmsg([data], others, socket.MSG_DONTWAIT, *address)

    def _send_to(self, handle: socket.socket, message: items.Message, ancillary: list[tuple[int, int, bytes]], to: bytes) -> None:
        with _reachable(self._context, self._process, self._found):
            if self._found.family in _INTERNET:
                host = socket.inet_ntop(self._found.family, to[8:24] if self._found.family == socket.AF_INET6 else to[4:8])
                handle.sendmsg([message.data], ancillary, socket.MSG_DONTWAIT, (host, addresses.port_of(to)))
            else:
                path = addresses.path_of(to)
                self._send_once(handle, message.data, ancillary, message, path if path is not None else to[2:])

    def _descriptors(self, number: int) -> list[int]:
        """Those that were passed with a message."""
        fds = []
        for one in self._passed:
            if one.message == number:
                own = self._made.get((self._process.pid, one.same)) if one.same is not None else self._elsewhere(one)
                if own is None:
                    raise RestoreError(self._what, f"descriptor {one.index} of a message ({one.path}) is open nowhere else")
                fds.append(own)
        return fds

    def _elsewhere(self, one: items.Passed) -> int | None:
        """An open file that is nowhere but in a message, or belongs to another process."""
        if one.type == "socket":
            return self._context.sockets.get(one.inode)
        memory = one.type == "memfd" and one.content is not None
        if not memory and (one.type not in ("regular", "directory") or one.path.endswith(" (deleted)")):
            return None
        file = File(
            fd=-1, close_on_exec=False, type=one.type, path=one.path, flags=one.flags, position=one.position, mode=one.mode or 0, device=one.device,
            inode=one.inode, special=None, mount=None, size=None, mtime=None, links=None, deleted=False, content=one.content,
        )  # fmt: skip
        make = paths.make_memory_file if memory else paths.make_regular if one.type == "regular" else paths.make_directory
        if memory and one.seals:
            self._context.objects.seals[one.device, one.inode] = one.seals
        return self._context.own(make(self._context, self._process, file))


def _new(found: items.Socket) -> int:
    return socket.socket(found.family, found.type | socket.SOCK_NONBLOCK, found.protocol).detach()


def _is_anywhere(raw: bytes) -> bool:
    return not (raw[8:24] if len(raw) > 16 else raw[4:8]).strip(b"\0")


def _destination(found: items.Socket) -> bytes:
    raw = found.local_raw or b""
    if found.family in _INTERNET and _is_anywhere(raw):
        loopback = socket.inet_pton(found.family, "::1" if found.family == socket.AF_INET6 else "127.0.0.1")
        return raw[:8] + loopback + raw[24:] if found.family == socket.AF_INET6 else raw[:4] + loopback + raw[8:]
    return raw


@contextmanager
def _reachable(context: Context, process: Process, found: items.Socket) -> Iterator[None]:
    """Where the address of a unix socket leads to it."""
    folder = folder_of(process, found) if found.family == socket.AF_UNIX else None
    if folder is None:
        yield
        return
    with addresses.inside(folder):
        yield


def folder_of(process: Process, found: items.Socket) -> str | None:
    """The current directory of a process, if a unix socket's path begins there."""
    path = addresses.path_of(found.local_raw or b"\0\0\0")
    if path is None or not path or path.startswith("/"):
        return None
    return next((one.path for one in select(process.section("status"), Directory) if one.role == "cwd" and not one.deleted), None)


def _grow(handle: socket.socket, option: int, force: int) -> None:
    for number in (force, option):
        with suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, number, _ROOM)
            return


def _grow_by_number(fd: int) -> None:
    for number in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with suppress(OSError):
            addresses.set_number(fd, socket.SOL_SOCKET, number, _ROOM)
            return


def _drops(fd: int) -> int:
    """Messages that a socket had no room for."""
    try:
        words = Handle(fd).octets(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
        return int.from_bytes(words[4 * _DROPS :], "little")
    except OSError:
        return 0
