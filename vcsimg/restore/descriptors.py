"""Descriptors: each open file is made once, by us, handed over to all processes that have it, and put at its numbers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from socket import socket

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.family import SharedFile, SharedTable
from vcsimg.image.sections.files import Duplicate, File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.sockets import Socket
from vcsimg.image.snapshot import Process
from vcsimg.restore import anonymous, mqueues, paths, pipes, sockets, terminals
from vcsimg.restore.context import Context
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.transport import place

_STATUS_FLAGS = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME
"""Not O_ASYNC: the signal names the descriptor through which it was set, so the process sets it."""
_O_PATH = 0o10000000
LARGEST = 1 << 20

Maker = Callable[[Context, Process, File], int | None]
"""Makes an open file: a descriptor of ours. None: it led out of the image, and what the user has at hand stands in for it."""

_MAKERS: Mapping[str, Maker] = {
    "regular": mqueues.make_regular_or_queue,
    "directory": paths.make_directory,
    "symlink": paths.make_symlink,
    "memfd": paths.make_memory_file,
    "character": terminals.make_character,
    "fifo": pipes.make_fifo,
    "pipe": pipes.make_pipe,
    "socket": sockets.make_socket,
    "eventfd": anonymous.make_eventfd,
    "eventpoll": anonymous.make_epoll,
    "timerfd": anonymous.make_timerfd,
    "signalfd": anonymous.make_signalfd,
    "inotify": anonymous.make_inotify,
    "pidfd": anonymous.make_pidfd,
}


@dataclass
class Descriptors:
    """`made`: descriptors of ours by process and lowest descriptor there; None: what the user has at hand."""

    context: Context
    made: dict[tuple[int, int], int | None] = field(default_factory=dict)

    def make_all(self) -> None:
        """All open files of the image. Raises RestoreError."""
        self._make_sockets()
        for process in self.context.snapshot.processes:
            self.make(process)
        sockets.finish_sockets(self.context, self.made)

    def _make_sockets(self) -> None:
        """In an order of their own."""
        found = [
            (sockets.order(self.context, one), process, file)
            for process in self.context.snapshot.processes
            for one in select(process.section("sockets"), Socket)
            for file in select(process.section("files"), File)
            if file.fd == one.fd and file.type == "socket"
        ]
        for _, process, file in sorted(found, key=lambda item: item[0]):
            self._make(process, file)

    def make(self, process: Process) -> None:
        """All open files of a process, but those that it shares with one before it. Raises RestoreError."""
        section = process.section("files")
        shared = {file.fd: (file.process, file.process_fd) for file in select(process.section("shared"), SharedFile)}
        for file in select(section, File):
            other = shared.get(file.fd)
            if other is not None:
                if other not in self.made:
                    raise HostileImage(f"process {process.pid} fd {file.fd}", "shared with a descriptor that there is not")
                self.made[process.pid, file.fd] = self.made[other]
                if other in self.context.stand_ins:
                    self.context.stand_ins[process.pid, file.fd] = self.context.stand_ins[other]
                continue
            self.made[process.pid, file.fd] = self._make(process, file)

    def _make(self, process: Process, file: File) -> int | None:
        maker = paths.make_path if file.flags & _O_PATH else _MAKERS.get(file.type)
        what = f"process {process.pid} fd {file.fd} ({file.type} {file.path})"
        if maker is None:
            raise RestoreError(what, "this kind cannot be restored")
        try:
            fd = maker(self.context, process, file)
        except OSError as error:
            raise RestoreError(what, str(error.strerror)) from None
        if fd is None:
            return None
        if not file.flags & _O_PATH:
            wanted = file.flags & _STATUS_FLAGS
            if fcntl.fcntl(fd, fcntl.F_GETFL) & _STATUS_FLAGS != wanted:
                try:
                    fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
                except OSError as error:
                    raise RestoreError(what, f"its flags cannot be set: {error.strerror}") from None
        return self.context.own(fd)

    def place(self, skeleton: Skeleton, sender: socket) -> None:
        """Give a process its descriptors; the transport socket stays open. Raises RestoreError."""
        process = skeleton.process
        if any(table.table == "files" for table in select(process.section("shared"), SharedTable)):
            return
        wanted = []
        section = process.section("files")
        numbers = [(file.fd, file.fd, file.close_on_exec) for file in select(section, File)]
        numbers += [(duplicate.fd, duplicate.of, duplicate.close_on_exec) for duplicate in select(section, Duplicate)]
        for fd, of, cloexec in numbers:
            if (process.pid, of) not in self.made:
                raise HostileImage(f"process {process.pid} fd {fd}", f"a duplicate of {of}, which is not open")
            own = self.made[process.pid, of]
            if own is None:
                own = self.context.stand_in(process.pid, of, fd if fd < 3 else of if of < 3 else 0)
            wanted.append((own, fd, cloexec))
        place(skeleton, sender, wanted)

    def highest(self) -> int:
        """The largest descriptor of any process of the image. Raises HostileImage."""
        largest = 2
        for process in self.context.snapshot.processes:
            section = process.section("files")
            seen = set()
            for fd in [*(file.fd for file in select(section, File)), *(one.fd for one in select(section, Duplicate))]:
                if not 0 <= fd < LARGEST or fd in seen:
                    raise HostileImage(f"process {process.pid} fd {fd}", "it stands twice, or is no descriptor")
                seen.add(fd)
                largest = max(largest, fd)
        return largest
