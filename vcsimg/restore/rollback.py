"""A file is brought back: made ready before the processes are, given its name when they are whole, undone if that fails.

No symbolic link is followed on the way, what is written belongs to the user and gets no more than the permissions rwxrwxrwx of the image, and
nothing is overwritten that is not kept.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from vcsimg.errors import RestoreError
from vcsimg.kernel import naming
from vcsimg.restore.file_version import Version, write
from vcsimg.restore.objects import write_at

_BLOCK = 2 << 20
_NAME_MAX = 255
_SUFFIX = "before-rollback"
_TRIES = 100
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Action:
    """One file that is brought back. `said`: what has happened to it."""

    def __init__(self, version: Version, root: str, said: str) -> None:
        self.version = version
        self._said = said
        self._root = root
        self._name = os.path.basename(version.path)
        self._path = os.path.dirname(version.path)
        self._folder = -1
        self._made: list[str] = []  # folders

    def prepare(self) -> str | None:
        """Make ready what commit() will use. Returns where the processes are to open it, if not at its path. Raises OSError."""
        root = os.open(self._root, _FOLDER)
        try:
            self._folder = self._enter(root)
        finally:
            os.close(root)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self._name, dir_fd=self._folder, follow_symlinks=False).st_mode):
                raise RestoreError(self.version.what, "there is something else at its path now")
        return None

    def commit(self) -> str:
        """Bring it back. Returns a note. Raises OSError."""
        raise NotImplementedError

    def undo(self) -> None:
        """After commit(), or what of it was done. Raises OSError."""
        raise NotImplementedError

    def clear(self) -> None:
        """After undo(): what prepare() has made goes. Raises OSError."""
        for path in reversed(self._made):
            os.rmdir(path)
        self._made.clear()

    def close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _enter(self, root: int) -> int:
        """The folder of the file; what is missing of its path is made."""
        path = self._path.strip("/") or "."
        try:
            return naming.open_directly(path, _FOLDER, root)
        except FileNotFoundError:
            pass
        parts = path.split("/")
        folder = naming.open_directly(".", _FOLDER, root)
        for index, part in enumerate(parts):
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
                    self._made.append(f"{self._root}/{'/'.join(parts[: index + 1])}")
                inner = naming.open_directly(part, _FOLDER, folder)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _create(self, name: str) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder)

    def _present(self, flags: int) -> int:
        """The file that is at its path now."""
        return os.open(self._name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)

    def _beside(self, suffix: str) -> Iterator[str]:
        """Names for a file beside it, until one is free."""
        moment = time.strftime("%Y%m%d-%H%M%S")
        for number in range(1, _TRIES):
            ending = f".{suffix}.{moment}{f'-{number}' if number > 1 else ''}"
            yield _shortened(self._name, ending)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name)

    def _keep(self, old: str) -> str:
        """Give a file of the folder a name that says what it was; returns the name."""
        for name in self._beside(_SUFFIX):
            try:
                _rename(old, name, self._folder)
            except FileExistsError:
                continue
            return name
        raise AssertionError

    def _copy_aside(self, fd: int, start: int, suffix: str) -> str:
        """Keep bytes [start, …) of the file in one of its own; returns its name."""
        for name in self._beside(suffix):
            try:
                kept = self._create(name)
            except FileExistsError:
                continue
            try:
                _copy(fd, start, kept, 0)
                _look_like(kept, os.fstat(fd))
                os.fsync(kept)
            except BaseException:
                os.unlink(name, dir_fd=self._folder)
                raise
            finally:
                os.close(kept)
            return name
        raise AssertionError

    def _note(self, kept: str) -> str:
        return f"{self.version.what} {self._said}: brought back; what was there is kept in {os.path.join(self._path, kept)}"


class Replacement(Action):
    """A new file takes the name."""

    _new = ""
    _kept = ""
    _named = False

    def prepare(self) -> str | None:
        super().prepare()
        name = _shortened(self._name, f".vcsimg-{os.getpid()}")
        fd = self._create(name)
        self._new = name
        try:
            write(self.version, fd)
            with suppress(OSError):
                _take_attributes(self._present(os.O_RDONLY), fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        return f"/proc/self/fd/{self._folder}/{name}"

    def commit(self) -> str:
        version = self.version
        fd = os.open(self._new, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            if version.content is not None and os.geteuid() == 0:
                with suppress(OSError):
                    os.fchown(fd, version.content.uid, version.content.gid)
            os.fchmod(fd, version.mode & 0o777)
            _set_time(fd, version.mtime)
        finally:
            os.close(fd)
        try:
            _rename(self._new, self._name, self._folder)
        except FileExistsError:
            self._kept = self._exchange()
        self._named = True
        if self._kept:
            return self._note(self._kept)
        return f"{version.what} {self._said}: brought back"

    def _exchange(self) -> str:
        try:
            naming.exchange(self._new, self._name, self._folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            kept = self._keep(self._name)
            _rename(self._new, self._name, self._folder)
            return kept
        try:
            return self._keep(self._new)
        except BaseException:
            naming.exchange(self._new, self._name, self._folder)
            raise

    def undo(self) -> None:
        if not self._named:
            return
        os.rename(self._name, self._new, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        if self._kept:
            _rename(self._kept, self._name, self._folder)
        self._named = False

    def clear(self) -> None:
        if self._new:
            os.unlink(self._new, dir_fd=self._folder)
        super().clear()


class _Overwriting(Action):
    """The file itself is changed; what it loses is kept beside it."""

    _kept = ""

    def _put_back(self, start: int, *, whole: bool) -> None:
        """What was kept stands at `start` again; `whole`: and is the end of the file. Nothing happens when nothing was kept."""
        if not self._kept:
            return
        kept = os.open(self._kept, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            fd = self._present(os.O_WRONLY)
            try:
                _copy(kept, 0, fd, start)
                if whole:
                    os.ftruncate(fd, start + os.fstat(kept).st_size)
            finally:
                os.close(fd)
        finally:
            os.close(kept)
        os.unlink(self._kept, dir_fd=self._folder)


class InPlace(_Overwriting):
    """It is written anew."""

    def commit(self) -> str:
        fd = self._present(os.O_RDWR)
        try:
            self._kept = self._copy_aside(fd, 0, _SUFFIX)
            write(self.version, fd)
            os.fsync(fd)
            _set_time(fd, self.version.mtime)
        finally:
            os.close(fd)
        return self._note(self._kept)

    def undo(self) -> None:
        self._put_back(0, whole=True)


class Cut(_Overwriting):
    """What was appended is cut off: its beginning is not in the image, and taken for unchanged."""

    def commit(self) -> str:
        size = self.version.size or 0
        fd = self._present(os.O_RDWR)
        try:
            self._kept = self._copy_aside(fd, size, "cut-off-by-rollback")
            os.ftruncate(fd, size)
            _set_time(fd, self.version.mtime)
        finally:
            os.close(fd)
        kept = os.path.join(self._path, self._kept)
        return f"{self.version.what} {self._said}: what was appended is cut off, and kept in {kept}"

    def undo(self) -> None:
        self._put_back(self.version.size or 0, whole=False)


def _copy(source: int, start: int, target: int, offset: int) -> None:
    """Copy bytes [start, …) of a file to another, to `offset`."""
    while data := os.pread(source, _BLOCK, start):
        write_at(target, data, offset)
        start += len(data)
        offset += len(data)


def _look_like(fd: int, facts: os.stat_result) -> None:
    if os.geteuid() == 0:
        with suppress(OSError):
            os.fchown(fd, facts.st_uid, facts.st_gid)
    os.fchmod(fd, facts.st_mode & 0o777)
    _set_time(fd, facts.st_mtime_ns)


def _take_attributes(source: int, target: int) -> None:
    """Extended attributes of the user, and the access list. Not what the kernel goes by, such as capabilities: the content is another one.
    Closes `source`."""
    try:
        for name in os.listxattr(source):
            if name.startswith("user.") or name == "system.posix_acl_access":
                with suppress(OSError):
                    os.setxattr(target, name, os.getxattr(source, name))
    finally:
        os.close(source)


def _set_time(fd: int, mtime: int | None) -> None:
    if mtime is not None:
        with suppress(OSError, OverflowError):
            os.utime(fd, ns=(time.time_ns(), mtime))


def _rename(old: str, new: str, folder: int) -> None:
    """Rename, if there is nothing of the new name. Raises OSError."""
    try:
        naming.rename_to_new(old, new, folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.unlink(old, dir_fd=folder)


def _shortened(name: str, ending: str) -> str:
    """A name with an ending, no longer than a file's name may be."""
    return os.fsdecode(os.fsencode(name)[: _NAME_MAX - len(os.fsencode(ending))]) + ending
