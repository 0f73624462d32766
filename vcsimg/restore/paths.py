"""Open files that a path leads to, and files that no path leads to any more."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from vcsimg.errors import RestoreError
from vcsimg.image.sections.files import File, Sealed
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.image.versions import Read, contents, reader
from vcsimg.restore.context import Context, files_of
from vcsimg.restore.objects import copy, nameless, pour

_O_PATH = 0o10000000
_O_TMPFILE = 0o20000000
_CREATION = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY | _O_TMPFILE


def _flags(file: File) -> int:
    made = os.O_DIRECTORY if file.flags & _O_TMPFILE else 0  # it is a part of O_TMPFILE
    return file.flags & ~(_CREATION | made) | os.O_NOCTTY | os.O_CLOEXEC


def make_regular(context: Context, process: Process, file: File) -> int:
    """A file at its path, with its offset. Raises RestoreError, OSError."""
    what = f"process {process.pid} fd {file.fd} (file {file.path})"
    if file.deleted:
        return _deleted(context, process, file, what)
    place = context.places.get((file.path, file.inode))
    path = place or context.at(what, file.path)
    flags = _flags(file) & ~os.O_DIRECT
    fd = context.space.open(path, flags & ~os.O_NOFOLLOW if place else flags)
    try:
        os.lseek(fd, file.position, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _deleted(context: Context, process: Process, file: File, what: str) -> int:
    """A file without a path, from the content in the image."""
    key = (file.device, file.inode)
    own = context.objects.get(key)
    if own is None:
        other = _other_name(context, file, what) if file.links else None
        if other is not None:
            fd = context.space.open(other, _flags(file) & ~os.O_DIRECT)
            os.lseek(fd, file.position, os.SEEK_SET)
            return fd
        read = _content(process, file)
        if read is None and file.size:
            raise RestoreError(what, "it was deleted, and the image does not hold its content")
        context.at(what, file.path)
        own = nameless(context.root, file.path, file.mode)
        context.objects.adopt(key, own)
        if read is not None:
            pour(read, own)
        _set_time(own, file)
    fd = os.open(f"/proc/self/fd/{own}", _flags(file) & ~(os.O_NOFOLLOW | os.O_DIRECT))
    os.lseek(fd, file.position, os.SEEK_SET)
    return fd


def _set_time(fd: int, file: File) -> None:
    """When it was last written."""
    if file.mtime is not None:
        with suppress(OSError, OverflowError):
            os.utime(fd, ns=(os.fstat(fd).st_atime_ns, file.mtime))


def _content(process: Process, file: File) -> Read | None:
    """The content of a file that lost the path by which it was opened; it may have had another one."""
    files = files_of(process)
    if file.content is not None and files.size(file.content) is not None:
        return partial(files.read, file.content)
    for content in contents(process):
        if (content.device, content.inode) == (file.device, file.inode):
            return reader(process, content)
    return None


def _other_name(context: Context, file: File, what: str) -> str | None:
    """Another name of a file, in the folder where the removed one was."""
    folder = os.path.dirname(context.at(what, file.path))
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.inode() == file.inode and entry.is_file(follow_symlinks=False):
                    return entry.path
    except OSError:
        pass
    return None


def make_memory_file(context: Context, process: Process, file: File) -> int:
    """memfd_create(2)."""
    what = f"process {process.pid} fd {file.fd} ({file.path})"
    key = (file.device, file.inode)
    own = context.objects.get(key)
    files = files_of(process)
    known = file.content is not None and files.size(file.content) is not None
    if own is None:
        if not known and file.size:
            raise RestoreError(what, "the image does not hold its content")
        own = context.objects.make(key, file.path.removeprefix("/memfd:").removesuffix(" (deleted)"), file.size or 0)
    if known and file.content is not None:
        copy(file.content, files, own)
    _set_time(own, file)
    if os.fstat(own).st_mode & 0o777 != file.mode & 0o777:
        os.fchmod(own, file.mode & 0o7777)  # MFD_NOEXEC_SEAL
    for sealed in select(process.section("files"), Sealed):
        if sealed.fd == file.fd:
            context.objects.seals[key] = sealed.seals
    fd = os.open(f"/proc/self/fd/{own}", _flags(file) & ~os.O_NOFOLLOW)
    os.lseek(fd, file.position, os.SEEK_SET)
    return fd


def make_directory(context: Context, process: Process, file: File) -> int:
    what = f"process {process.pid} fd {file.fd} (directory {file.path})"
    if file.deleted:
        return _removed_directory(context.at(what, file.path), file, what)
    fd = context.space.open(context.at(what, file.path), _flags(file) | os.O_DIRECTORY)
    if file.position:
        os.lseek(fd, file.position, os.SEEK_SET)
    return fd


def _removed_directory(path: str, file: File, what: str) -> int:
    """One that was removed is there for a moment."""
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise RestoreError(what, f"it was removed, and cannot be made again: {error.strerror}") from None
    try:
        os.chmod(path, file.mode & 0o7777)
        return os.open(path, _flags(file) | os.O_DIRECTORY)
    finally:
        os.rmdir(path)


def make_symlink(context: Context, process: Process, file: File) -> int:
    return make_path(context, process, file)


def make_path(context: Context, process: Process, file: File) -> int:
    """O_PATH: a place in the file system, not an open file."""
    what = f"process {process.pid} fd {file.fd} (path {file.path})"
    if file.deleted:
        raise RestoreError(what, "it was deleted")
    return context.space.open(context.at(what, file.path), _O_PATH | os.O_CLOEXEC | file.flags & (os.O_NOFOLLOW | os.O_DIRECTORY))
