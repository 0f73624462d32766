"""Open files that a path leads to, and files that no path leads to any more."""

from __future__ import annotations

import os
import stat

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.files import File, Sealed
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.restore.context import Context, files_of
from vcsimg.restore.objects import copy

_O_PATH = 0o10000000
_O_TMPFILE = 0o20000000
_CREATION = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY | _O_TMPFILE
_STATELESS = ("/proc", "/sys")
"""File systems whose files are made up when they are read."""


def _path(context: Context, what: str, path: str) -> str:
    if not path.startswith("/") or "/../" in f"{path}/" or "\0" in path:
        raise HostileImage(what, f"{path!r} is no absolute path")
    return context.root + path


def _flags(file: File) -> int:
    made = os.O_DIRECTORY if file.flags & _O_TMPFILE else 0  # it is a part of O_TMPFILE
    return file.flags & ~(_CREATION | made) | os.O_NOCTTY | os.O_CLOEXEC


def make_regular(context: Context, process: Process, file: File) -> int:
    """A file at its path, with its offset. Raises RestoreError, OSError."""
    what = f"process {process.pid} fd {file.fd} (file {file.path})"
    if file.deleted:
        return _deleted(context, process, file, what)
    path = _path(context, what, file.path)
    try:
        facts = os.stat(path)
    except OSError as error:
        raise RestoreError(what, f"the file is gone: {error.strerror}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise RestoreError(what, "there is something else at its path now")
    fd = os.open(path, _flags(file) & ~os.O_DIRECT)
    try:
        _compare(context, process, file, fd, what)
        os.lseek(fd, file.position, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _compare(context: Context, process: Process, file: File, fd: int, what: str) -> None:
    """What has happened to the file since, and what is to be done about it."""
    facts = os.fstat(fd)
    if facts.st_size == 0 and any(_is_in(context, facts, folder) for folder in _STATELESS):
        return
    changes = []
    if file.size is not None and facts.st_size != file.size:
        changes.append(f"{'grown' if facts.st_size > file.size else 'been truncated'} from {file.size} to {facts.st_size} bytes")
    elif file.mtime is not None and facts.st_mtime_ns != file.mtime:
        changes.append("been written")
    if facts.st_ino != file.inode:
        changes.append("been replaced")
    if not changes:
        return
    policy = context.options.files
    change = " and ".join(changes)
    if policy == "fail":
        raise RestoreError(what, f"the file has {change} since the capture", option="--files keep")
    if policy == "keep":
        context.notes.append(f"{what} has {change} since the capture")
        return
    files = files_of(process)
    writer = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        if file.content is not None and files.size(file.content) is not None:
            copy(file.content, files, writer)
        elif changes[0].startswith("grown") and file.size is not None and facts.st_ino == file.inode:
            os.ftruncate(writer, file.size)
        else:
            raise RestoreError(what, f"the file has {change}, and the image does not hold its content", option="--files keep")
    finally:
        os.close(writer)


def _is_in(context: Context, facts: os.stat_result, folder: str) -> bool:
    try:
        return os.stat(context.root + folder).st_dev == facts.st_dev
    except OSError:
        return False


def _deleted(context: Context, process: Process, file: File, what: str) -> int:
    """A file without a path, from the content in the image."""
    key = (file.device, file.inode)
    own = context.objects.get(key)
    if own is None:
        files = files_of(process)
        known = file.content is not None and files.size(file.content) is not None
        if file.links:
            other = _other_name(context, file, what)
            if other is not None:
                fd = os.open(other, _flags(file) & ~os.O_DIRECT)
                os.lseek(fd, file.position, os.SEEK_SET)
                return fd
        if not known and file.size:
            raise RestoreError(what, "it was deleted, and the image does not hold its content")
        own = _nameless(context, file)
        if own is None:
            own = context.objects.make(key, os.path.basename(file.path) or "deleted", 0)
        else:
            context.objects.adopt(key, own)
        if known and file.content is not None:
            copy(file.content, files, own)
    fd = os.open(f"/proc/self/fd/{own}", _flags(file) & ~(os.O_NOFOLLOW | os.O_DIRECT))
    os.lseek(fd, file.position, os.SEEK_SET)
    return fd


def _other_name(context: Context, file: File, what: str) -> str | None:
    """Another name of a file, in the folder where the removed one was."""
    folder = os.path.dirname(_path(context, what, file.path))
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.inode() == file.inode and entry.is_file(follow_symlinks=False):
                    return entry.path
    except OSError:
        pass
    return None


def _nameless(context: Context, file: File) -> int | None:
    """A file without a name where the old one was, with its permissions; None: none can be made there."""
    if not file.path.startswith("/"):
        return None
    try:
        fd = os.open(context.root + os.path.dirname(file.path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    os.fchmod(fd, file.mode & 0o7777)
    return fd


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
        return _removed_directory(_path(context, what, file.path), file, what)
    fd = os.open(_path(context, what, file.path), _flags(file) | os.O_DIRECTORY)
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
    return os.open(_path(context, what, file.path), _O_PATH | os.O_CLOEXEC | file.flags & (os.O_NOFOLLOW | os.O_DIRECTORY))
