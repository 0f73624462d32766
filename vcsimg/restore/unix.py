"""unix(7) sockets: made alone, in pairs, or connected through the address that they were connected through.

What the kernel notes about who made a connection (SO_PEERCRED) is right only if that process makes it: so processes of the image are asked to.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from functools import partial

from vcsimg.errors import RestoreError
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Credentials
from vcsimg.image.snapshot import Process
from vcsimg.kernel import pidfd
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import WORD
from vcsimg.restore import addresses
from vcsimg.restore.context import Context
from vcsimg.restore.pipes import standard
from vcsimg.restore.remote import Call
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.socket_queues import Queue, everything, folder_of, other_end

_ESTABLISHED, _LISTEN = 1, 10
_RCV_AND_SND = 3
_KEEP = WORD - 1


class UnixMaker:
    """Makes one socket, and what it is connected to."""

    def __init__(self, context: Context, process: Process, file: File, found: items.Socket, what: str) -> None:
        self._context = context
        self._process = process
        self._file = file
        self._found = found
        self._what = what

    def make(self) -> int | None:
        """None: its other end was outside, and it was standard input, output or error. Raises RestoreError, OSError."""
        found = self._found
        if found.state == _LISTEN:
            return self._listening(found)
        other = other_end(self._context, found)
        connected = found.state == _ESTABLISHED and found.type != socket.SOCK_DGRAM
        if other is not None and (connected or not (addresses.is_bound(found) or addresses.is_bound(other[1]))):
            return self._pair(*other)
        if found.type == socket.SOCK_DGRAM and found.peer_inode and other is None and not found.peer_raw:
            return self._lost()
        if not connected:
            fd = self._new()
            self._bind(fd, self._process, found)
            return fd
        listener = _waits_at(self._context, found)
        return self._waiting(listener) if listener is not None else self._lost()

    # Alone

    def _new(self) -> int:
        return socket.socket(self._found.family, self._found.type | socket.SOCK_NONBLOCK).detach()

    def _listening(self, found: items.Socket) -> int:
        for waiting in select(self._process.section("sockets"), items.WaitingConnection):
            inodes = [one.inode for _, one in everything(self._context)]
            if waiting.fd == found.fd and waiting.peer_inode not in inodes:
                if self._context.options.outside == "fail":
                    reason = "a connection that was not accepted yet belongs to no process of the image"
                    raise RestoreError(self._what, reason, option="--outside close")
                self._context.notes.append(f"{self._what}: a connection that was not accepted yet is gone")
        backlog = found.backlog if found.backlog is not None else socket.SOMAXCONN
        return self._listen(self._process, found, self._asked(found.peer_pid), backlog)

    def _listen(self, process: Process, found: items.Socket, by: Skeleton, backlog: int) -> int:
        number = by.main.call(NR["socket"], found.family, found.type | socket.SOCK_NONBLOCK, 0)
        fd = _fetch(by, number)
        try:
            self._bind(fd, process, found)
            by.main.all([*_as_whom(by, [(NR["listen"], (number, backlog))])], self._what)
        except BaseException:
            os.close(fd)
            raise
        finally:
            by.main.call(NR["close"], number)
        return fd

    def _asked(self, pid: int | None) -> Skeleton:
        """The process that called listen(2), connect(2) or socketpair(2), if the image has it."""
        found = self._context.skeletons.get(pid) if pid is not None else None
        return found if found is not None else self._context.skeletons[self._process.pid]

    # Connected

    def _pair(self, process: Process, other: items.Socket) -> int:
        found = self._found
        ours = None
        if addresses.is_bound(found) or addresses.is_bound(other):
            ours = self._through_listener(process, other)
            if ours is None:
                self._context.notes.append(f"{self._what}: the connection has lost its addresses")
        if ours is None:
            by = self._asked(found.peer_pid or other.peer_pid)
            room = by.main.room(8)
            calls: list[Call] = [(NR["socketpair"], (found.family, found.type | socket.SOCK_NONBLOCK, 0, room))]
            by.main.all([*_as_whom(by, calls)], self._what)
            numbers = [int.from_bytes(by.main.read(room + 4 * index, 4), "little") for index in range(2)]
            ours, theirs = (_fetch(by, number) for number in numbers)
            by.main.all([(NR["close"], (number,)) for number in numbers], self._what)
            by.main.clear()
            self._context.sockets[other.inode] = self._context.own(theirs)
        return ours

    def _through_listener(self, process: Process, other: items.Socket) -> int | None:
        """Connected by an address: one end has the address of the listening socket, the other what its client had."""
        here, there = (self._process, self._found), (process, other)
        server, client = (here, there) if self._is_server(self._found, other) else (there, here)
        with ExitStack() as stack:
            try:
                listener = self._listener(stack, *server)
                fd = self._connected(client[1].local_raw or b"", client, server, listener)
            except (OSError, RestoreError):
                return None
        accepted = addresses.accept(listener)
        ours, theirs = (accepted, fd) if server is here else (fd, accepted)
        self._context.sockets[other.inode] = self._context.own(theirs)
        return ours

    def _is_server(self, one: items.Socket, other: items.Socket) -> bool:
        if addresses.is_bound(one) and addresses.is_bound(other):
            return self._image_listener(one) is not None
        return addresses.is_bound(one)

    def _image_listener(self, server: items.Socket) -> int | None:
        for _, one in everything(self._context):
            if one.state == _LISTEN and one.type == server.type and one.local_raw == server.local_raw:
                return self._context.sockets.get(one.inode)
        return None

    def _listener(self, stack: ExitStack, process: Process, server: items.Socket) -> int:
        """The one of the image, or one for the moment."""
        found = self._image_listener(server)
        if found is not None:
            return found
        path = self._place(process, server)
        if path is not None and os.path.lexists(path):
            raise RestoreError(self._what, "its address is in use")
        fd = self._context.own(self._listen(process, server, self._asked(server.peer_pid), 1))
        if path is not None:
            stack.callback(os.unlink, path)
        return fd

    def _connected(
        self, local: bytes, client: tuple[Process, items.Socket], server: tuple[Process, items.Socket], listener: int
    ) -> int:
        """A new socket that is connected to a listening one, by the process that made the connection."""
        by = self._asked(server[1].peer_pid)
        number = by.main.call(NR["socket"], client[1].family, client[1].type | socket.SOCK_NONBLOCK, 0)
        try:
            fd = _fetch(by, number)
            if len(local) > 2:
                self._bind(fd, *client)
            address = server[1].local_raw or b""
            path = self._place(*server)
            if path is not None:
                full = os.fsencode(path)
                address = address[:2] + full + b"\0" if len(full) < 108 else address
            calls: list[Call] = [(NR["connect"], (number, by.main.put(address), len(address)))]
            by.main.all([*_as_whom(by, calls)], self._what)
        finally:
            by.main.call(NR["close"], number)
            by.main.clear()
        return fd

    def _waiting(self, listener: tuple[Process, items.Socket]) -> int:
        """It waits to be accepted."""
        for unsent in select(self._process.section("sockets"), items.Unsent):
            if unsent.fd == self._found.fd:
                raise RestoreError(
                    self._what, "what it has sent waits in a connection that was not accepted yet, and was not captured"
                )
        return self._connected(
            self._found.local_raw or b"", (self._process, self._found), listener, self._context.sockets[listener[1].inode]
        )

    def _lost(self) -> int | None:
        """The other end is not in the image, or not at all."""
        found = self._found
        if (found.shutdown or 0) & _RCV_AND_SND != _RCV_AND_SND:
            if standard(self._process, self._file):
                return None
            if self._context.options.outside == "fail":
                raise RestoreError(self._what, "its other end belongs to no process of the image", option="--outside close")
        ours, theirs = socket.socketpair(socket.AF_UNIX, found.type)
        Queue(self._context, self._process, found, {}).fill(theirs.fileno())
        theirs.close()
        return ours.detach()

    # Addresses

    def _place(self, process: Process, found: items.Socket) -> str | None:
        """The path that a socket is bound to; None: none."""
        path = addresses.path_of(found.local_raw or b"\0\0\0")
        if not path:
            return None
        if path.startswith("/"):
            return path
        folder = folder_of(process, found)
        if folder is None:
            raise RestoreError(self._what, f"its path {path!r} begins at a folder that is not known")
        return os.path.join(folder, path)

    def _bind(self, fd: int, process: Process, found: items.Socket) -> None:
        address = found.local_raw
        if not addresses.is_bound(found) or address is None:
            return
        path = self._place(process, found)
        with ExitStack() as stack:
            try:
                made = []
                if path is not None:
                    made = self._missing_folders(os.path.dirname(path))
                    self._clear_path(stack, path, found)
                    if not (addresses.path_of(address) or "").startswith("/"):
                        stack.enter_context(addresses.inside(folder_of(process, found) or "/"))
                addresses.bind(fd, address)
                if path is not None and found.unlinked:
                    self._context.before_they_run += [
                        partial(_unlink, path),
                        *(partial(_rmdir, folder) for folder in reversed(made)),
                    ]
                elif made:
                    self._context.notes.append(f"{self._what}: its folder {made[-1]} was gone and is made anew, empty")
            except OSError as error:
                raise RestoreError(self._what, f"its address {found.local} cannot be had: {error.strerror}") from None

    def _missing_folders(self, folder: str) -> list[str]:
        """Make what is missing of the folder that a socket file is in, outermost first: the folder of a program's temporary files goes with it."""
        missing: list[str] = []
        while folder and not os.path.lexists(folder):
            missing.insert(0, folder)
            folder = os.path.dirname(folder)
        made = []
        for one in missing:
            with suppress(FileExistsError):  # somebody else has made it just now
                os.mkdir(one, 0o700)
                made.append(one)
        return made

    def _clear_path(self, stack: ExitStack, path: str, found: items.Socket) -> None:
        """A socket file that nobody listens on any more is in the way. The new one gets its permissions and owner."""
        with ExitStack() as probing:
            probe = probing.enter_context(socket.socket(socket.AF_UNIX, found.type | socket.SOCK_NONBLOCK))
            try:
                probing.enter_context(addresses.inside(os.path.dirname(path)))
                probe.connect(os.path.basename(path))
            except FileNotFoundError:
                return
            except BlockingIOError:
                pass  # so many wait to be accepted that it has no room for one more
            except OSError:
                facts = os.stat(path)
                if found.bound_inode is not None and facts.st_ino != found.bound_inode:
                    raise RestoreError(self._what, f"there is something else at {path} now") from None
                with suppress(OSError):
                    os.unlink(path)
                stack.callback(_give, path, facts)
                return
        raise RestoreError(self._what, f"another process listens at {path}")


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _rmdir(path: str) -> None:
    with suppress(OSError):  # somebody else has put something there, or it was taken away
        os.rmdir(path)


def _give(path: str, facts: os.stat_result) -> None:
    with suppress(OSError):
        os.chmod(path, facts.st_mode & 0o7777)
        os.chown(path, facts.st_uid, facts.st_gid)


def _waits_at(context: Context, found: items.Socket) -> tuple[Process, items.Socket] | None:
    """The listening socket of the image at which one waits to be accepted."""
    for process, one in everything(context):
        for waiting in select(process.section("sockets"), items.WaitingConnection):
            if waiting.fd == one.fd and waiting.peer_inode == found.inode and one.inode in context.sockets:
                return process, one
    return None


def place_in_line(context: Context, found: items.Socket) -> int | None:
    """Which of the connections that wait to be accepted it is; None: it is none."""
    for process in context.snapshot.processes:
        for number, waiting in enumerate(select(process.section("sockets"), items.WaitingConnection)):
            if waiting.peer_inode == found.inode:
                return number
    return None


def connect_datagrams(context: Context, process: Process, found: items.Socket) -> None:
    """When all that waits is in all sockets: a connected one takes nothing from others."""
    if found.type != socket.SOCK_DGRAM or not found.peer_raw or len(found.peer_raw) <= 2:
        return
    server = (process, found) if found.peer_inode == found.inode else other_end(context, found)
    folder = folder_of(server[0], server[1]) if server is not None else None
    with suppress(OSError), ExitStack() as stack:  # whoever was there may be gone: then sending fails, as it would have
        if folder is not None:
            stack.enter_context(addresses.inside(folder))
        addresses.connect(context.sockets[found.inode], found.peer_raw)


def _fetch(skeleton: Skeleton, number: int) -> int:
    """A descriptor of ours for one of a skeleton's."""
    process = pidfd.open(skeleton.tid)
    try:
        return pidfd.getfd(process, number)
    finally:
        os.close(process)


def _as_whom(skeleton: Skeleton, calls: list[Call]) -> list[Call]:
    """The calls as the user that the process shall be: what the kernel notes is the effective user and group."""
    for wanted in select(skeleton.process.section("status"), Credentials)[:1]:
        uid, gid = wanted.uid[1], wanted.gid[1]
        if os.geteuid() == 0 and (uid, gid) != (0, 0):
            before: list[Call] = [(NR["setresgid"], (_KEEP, gid, _KEEP)), (NR["setresuid"], (_KEEP, uid, _KEEP))]
            after: list[Call] = [(NR["setresuid"], (_KEEP, 0, _KEEP)), (NR["setresgid"], (_KEEP, 0, _KEEP))]
            return [*before, *calls, *after]
    return calls
