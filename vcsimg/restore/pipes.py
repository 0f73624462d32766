"""Pipes and FIFOs, with what waits in them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import termios

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.files import Duplicate, File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.pipes import Pipe, PipeData
from vcsimg.image.snapshot import Process
from vcsimg.image.units import PAGE_SIZE
from vcsimg.restore.context import Context

_O_ACCMODE = 3


def standard(process: Process, file: File) -> bool:
    """Whether a descriptor is standard input, output or error, or a duplicate of it."""
    return file.fd < 3 or any(one.of == file.fd and one.fd < 3 for one in select(process.section("files"), Duplicate))


def _ends(context: Context, file: File) -> tuple[bool, bool]:
    """Whether the image has a reading end of a pipe, and a writing end."""
    reading = writing = False
    for process in context.snapshot.processes:
        for other in select(process.section("files"), File):
            if other.type == file.type and (other.device, other.inode) == (file.device, file.inode):
                mode = other.flags & _O_ACCMODE
                reading |= mode != os.O_WRONLY
                writing |= mode != os.O_RDONLY
    return reading, writing


def _alone(context: Context, file: File) -> bool:
    """Whether nobody had the other end when it was captured."""
    return any(
        pipe.inode == file.inode and pipe.alone
        for process in context.snapshot.processes
        for pipe in select(process.section("pipes"), Pipe)
    )


def make_pipe(context: Context, process: Process, file: File) -> int | None:
    """An end of a pipe. Raises RestoreError."""
    key = (file.device, file.inode)
    ends = context.pipes.get(key)
    if ends is None:
        reading, writing = _ends(context, file)
        if not (reading and writing) and not _alone(context, file):
            if standard(process, file):
                return None
            if context.options.outside == "fail":
                raise RestoreError(
                    f"process {process.pid} fd {file.fd} ({file.path})",
                    "the other end of the pipe belongs to no process of the image",
                    option="--outside close",
                )
        ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        context.pipes[key] = ends
        context.own(ends[0])
        context.own(ends[1])
        _fill(context, file, ends[1])
    mode = file.flags & _O_ACCMODE
    end = int(mode != os.O_RDONLY)
    if mode != os.O_RDWR and (key, end) not in context.taken:
        context.taken.add((key, end))
        return os.dup(ends[end])
    # Another open file for the same end. Non-blocking for the time of opening: the other end may not be there yet.
    return os.open(f"/proc/self/fd/{ends[end]}", mode | os.O_NONBLOCK | os.O_CLOEXEC)


def _fill(context: Context, file: File, writer: int) -> None:
    """Capacity and content: those who have the reading end know what waits."""
    found = [
        (process, pipe)
        for process in context.snapshot.processes
        for pipe in select(process.section("pipes"), Pipe)
        if pipe.inode == file.inode
    ]
    for process, pipe in found[:1]:
        _set_capacity(context, process, pipe, writer)
    for process, pipe in found:
        if pipe.queued is not None:
            _fill_from(process, pipe, writer, _writes_packets(context, file))
            return


def _set_capacity(context: Context, process: Process, pipe: Pipe, writer: int) -> None:
    if not 0 < pipe.capacity <= 1 << 31:
        raise HostileImage(f"process {process.pid} fd {pipe.fd}", f"a pipe of {pipe.capacity} bytes")
    if pipe.capacity != fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ):
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, pipe.capacity)
        except OSError:
            context.notes.append(f"process {process.pid} fd {pipe.fd}: the pipe holds fewer bytes than it did")


def _writes_packets(context: Context, file: File) -> bool:
    """Whether an end of the pipe has O_DIRECT."""
    return any(
        other.flags & os.O_DIRECT and (other.type, other.inode) == (file.type, file.inode)
        for process in context.snapshot.processes
        for other in select(process.section("files"), File)
    )


def _fill_from(process: Process, pipe: Pipe, writer: int, packets: bool) -> None:
    parts = [part.data for part in select(process.section("pipes"), PipeData) if part.fd == pipe.fd]
    what = f"process {process.pid} fd {pipe.fd} (pipe)"
    if sum(map(len, parts)) != pipe.queued:
        raise RestoreError(what, f"of {pipe.queued} bytes that waited in it, the image holds {sum(map(len, parts))}")
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    if len(parts) > 1 or (packets and all(len(part) <= PAGE_SIZE for part in parts)):
        # Packets: each has a record of its own, and reading never returns more than one (pipe(2), O_DIRECT).
        fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_DIRECT)
    try:
        for part in parts:
            if os.write(writer, part) != len(part):
                raise BlockingIOError
    except BlockingIOError:
        raise RestoreError(what, "it is too small for what waited in it") from None
    fcntl.fcntl(writer, fcntl.F_SETFL, flags)


def make_fifo(context: Context, process: Process, file: File) -> int | None:
    """A FIFO at its path. What waits in it is put in by the first that opens it."""
    key = (file.device, file.inode)
    if key not in context.pipes:
        both = context.own(_open_fifo(context, process, file))
        context.pipes[key] = (both, both)
        _fill(context, file, both)
    flags = file.flags & (_O_ACCMODE | os.O_NONBLOCK) | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(f"/proc/self/fd/{context.pipes[key][0]}", flags)


def _others_have_it(context: Context, path: str) -> bool:
    """Whether a FIFO has a reader, or a writer: opening one end, and reading what is empty, tells (fifo(7))."""
    try:
        os.close(context.space.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    else:
        return True
    reader = context.space.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(reader, termios.FIONREAD, bytes(4)) != bytes(4) or os.read(reader, 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(reader)


def _open_fifo(context: Context, process: Process, file: File) -> int:
    """Open for both, so that neither end has to wait for the other. One whose name was removed gets it for a moment."""
    what = f"process {process.pid} fd {file.fd} (FIFO {file.path})"
    path = context.root + file.path
    if file.deleted:
        try:
            os.mkfifo(path, file.mode & 0o777)
        except OSError as error:
            raise RestoreError(what, f"its name was removed, and cannot be used again: {error.strerror}") from None
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise RestoreError(what, "there is something else at its path now")
        if not file.deleted and all(_ends(context, file)) and _others_have_it(context, path):
            raise RestoreError(what, "others have it open, perhaps the captured process, and it is one pipe for all who do")
        return context.space.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(what, str(error.strerror)) from None
    finally:
        if file.deleted:
            os.unlink(path)
