"""Files at their paths, compared with what they were when they were captured, and what is done about those that have changed.

keep        they are used as they are, with a note; one that is gone is replaced by a copy without a name
fail        refused
rollback    brought back, and what is there now is kept beside

A file is brought back in a new file, which takes its name at once, while the present one gets another: who has that open goes on with it, be it
the captured program itself, still alive, or another one. It is written to in place only if it must remain the same file: where it has other
names, and where nothing but its end is new and others have it open for writing, as a log that several programs write.

An image is untrusted. Nothing but regular files at the captured paths is touched, no symbolic link is followed on the way, what is written
belongs to the user and gets no more than the permissions rwxrwxrwx of the image, and nothing is overwritten that is not kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from vcsimg.errors import DamagedImage, RestoreError
from vcsimg.image.sections.contents import Content
from vcsimg.image.sections.files import File, MessageQueue
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.image.versions import Read, contents, reader
from vcsimg.kernel import naming
from vcsimg.restore.context import Context
from vcsimg.restore.objects import nameless, pour, write_at

_BLOCK = 2 << 20
_O_PATH = 0o10000000
_STATELESS = ("/proc", "/sys")
"""File systems whose files are made up when they are read."""
_NAME_MAX = 255
_SUFFIX = "before-rollback"
_TRIES = 100
_FOLDER = _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_KEEP = "--files keep"


@dataclass
class _Version:
    """A file as it was. `inode`, `size`, `mtime`: of the capture; `read`: its content, if the image holds it, else `reason` may say why not;
    `written`: processes can write to it. `watched`: its times do not tell whether it was written."""

    what: str
    path: str
    inode: int
    size: int | None
    mtime: int | None
    mode: int
    written: bool
    content: Content | None = None
    read: Read | None = None
    reason: str = ""
    watched: bool = False

    def take(self, process: Process, content: Content) -> None:
        """What the image holds of it, if this is more than what is known."""
        self.written |= content.written
        if self.content is None or self.read is None:
            self.content, self.read = content, reader(process, content)
            self.reason = content.reason or ""
            self.watched = content.in_memory

    def lacks(self) -> str:
        return f"the image does not hold its content{f' ({self.reason})' if self.reason else ''}"


@dataclass
class _Change:
    """What has happened to a file. `same_file`: it has the inode that it had; `same_content`: known to be the bytes that it had."""

    words: list[str] = field(default_factory=list)
    grown: bool = False
    same_file: bool = True
    same_content: bool = False

    def __str__(self) -> str:
        return " and ".join(self.words)


class Versions:
    """All files of an image that are at their paths. What is found is noted in `context`: in `places`, where to open files that are not to be
    opened at their own path."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._actions: list[_Action] = []
        self._done: list[_Action] = []
        self._owned: list[int] = []

    def prepare(self) -> None:
        """Before anything of the processes is made; changes nothing that can be seen by its name. Raises RestoreError, HostileImage,
        DamagedImage."""
        refused: list[tuple[_Version, str]] = []
        for version in self._all():
            path = self._context.at(version.what, version.path)
            try:
                facts = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                if self._context.options.files == "fail":
                    refused.append((version, "is gone"))
                else:
                    self._gone(version)
                continue
            except OSError as error:
                raise RestoreError(version.what, str(error.strerror)) from None
            if not stat.S_ISREG(facts.st_mode):
                raise RestoreError(version.what, "there is something else at its path now")
            if facts.st_size == 0 and any(self._is_in(facts, folder) for folder in _STATELESS):
                continue
            change = _compare(version, path, facts)
            if not change.words:
                continue
            if self._context.options.files == "fail":
                refused.append((version, f"has {change} since the capture"))
            elif self._context.options.files == "keep":
                self._context.notes.append(f"{version.what} has {change} since the capture")
            elif not change.same_content:
                self._bring_back(version, change, path, facts)
        if len(refused) == 1:
            raise RestoreError(refused[0][0].what, f"the file {refused[0][1]}", option=_KEEP)
        if refused:
            raise RestoreError("open files", "; ".join(f"{version.what} {why}" for version, why in refused), option=_KEEP)

    def commit(self) -> None:
        """When everything is open: files that are brought back get their names. Raises RestoreError; then undo() must be called."""
        for action in self._actions:
            self._done.append(action)
            try:
                self._context.notes.append(action.commit())
            except OSError as error:
                raise RestoreError(action.version.what, f"it cannot be brought back: {error.strerror}", option=_KEEP) from None

    def undo(self) -> None:
        """Everything is as before prepare()."""
        for action in reversed(self._done):
            with suppress(OSError):
                action.undo()
        self._done.clear()
        for action in self._actions:
            with suppress(OSError):
                action.clear()

    def close(self) -> None:
        for action in self._actions:
            action.close()
        for fd in self._owned:
            os.close(fd)
        self._actions.clear()
        self._owned.clear()

    def _all(self) -> Iterator[_Version]:
        found: dict[tuple[str, int], _Version] = {}
        for process in self._context.snapshot.processes:
            stored = {(content.device, content.inode): content for content in contents(process)}
            queues = {queue.fd for queue in select(process.section("files"), MessageQueue)}
            for file in select(process.section("files"), File):
                if file.type != "regular" or file.flags & _O_PATH or file.fd in queues:
                    continue
                content = stored.pop((file.device, file.inode), None) if file.deleted else stored.get((file.device, file.inode))
                if file.deleted:
                    continue  # no path leads to it
                what = f"process {process.pid} fd {file.fd} (file {file.path})"
                written = file.flags & os.O_ACCMODE != os.O_RDONLY
                version = found.setdefault(
                    (file.path, file.inode), _Version(what, file.path, file.inode, file.size, file.mtime, file.mode, written)
                )
                version.written |= written
                if content is not None:
                    version.take(process, content)
            for content in stored.values():
                what = f"process {process.pid} mapped file {content.path}"
                found.setdefault(
                    (content.path, content.inode),
                    _Version(what, content.path, content.inode, content.size, content.mtime, content.mode, content.written),
                ).take(process, content)
        for version in found.values():
            if version.read is None and version.size == 0:
                version.read = _nothing
            yield version

    def _is_in(self, facts: os.stat_result, folder: str) -> bool:
        try:
            return os.stat(self._context.root + folder).st_dev == facts.st_dev
        except OSError:
            return False

    def _gone(self, version: _Version) -> None:
        if version.read is None:
            raise RestoreError(version.what, f"the file is gone, and {version.lacks()}")
        if self._context.options.files == "rollback":
            self._act(_Replacement(version, self._context.root, "was gone"))
            return
        fd = nameless(self._context.root, version.path, version.mode)
        self._owned.append(fd)
        _write(version, fd)
        self._context.places[version.path, version.inode] = f"/proc/self/fd/{fd}"
        self._context.notes.append(
            f"{version.what} is gone: in its place is a copy without a name, which goes when the process ends; --files rollback puts it back at its path"
        )

    def _bring_back(self, version: _Version, change: _Change, path: str, facts: os.stat_result) -> None:
        said = f"has {change} since the capture"
        only_grown = change.same_file and change.grown
        if version.read is None:
            if not only_grown:
                raise RestoreError(version.what, f"the file {said}, and {version.lacks()}", option=_KEEP)
            if version.written:
                self._act(_Cut(version, self._context.root, said))
            else:
                self._context.notes.append(f"{version.what} {said}; it is only read, and stays as it is")
            return
        in_place = change.same_file and (facts.st_nlink > 1 or (only_grown and _written_elsewhere(path) and _begins(path, version)))
        self._act(_InPlace(version, self._context.root, said) if in_place else _Replacement(version, self._context.root, said))

    def _act(self, action: _Action) -> None:
        self._actions.append(action)
        try:
            place = action.prepare()
        except OSError as error:
            link = error.errno == errno.ELOOP
            reason = "a folder on its path is a symbolic link now" if link else f"it cannot be brought back: {error.strerror}"
            raise RestoreError(action.version.what, reason, option=_KEEP) from None
        if place is not None:
            self._context.places[action.version.path, action.version.inode] = place


class _Action:
    """One file that is brought back. `said`: what has happened to it."""

    def __init__(self, version: _Version, root: str, said: str) -> None:
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


class _Replacement(_Action):
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
            _write(self.version, fd)
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


class _Overwriting(_Action):
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


class _InPlace(_Overwriting):
    """It is written anew."""

    def commit(self) -> str:
        fd = self._present(os.O_RDWR)
        try:
            self._kept = self._copy_aside(fd, 0, _SUFFIX)
            _write(self.version, fd)
            os.fsync(fd)
            _set_time(fd, self.version.mtime)
        finally:
            os.close(fd)
        return self._note(self._kept)

    def undo(self) -> None:
        self._put_back(0, whole=True)


class _Cut(_Overwriting):
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


def _nothing(offset: int, length: int) -> bytes:
    return b""


def _compare(version: _Version, path: str, facts: os.stat_result) -> _Change:
    change = _Change(same_file=facts.st_ino == version.inode)
    written = version.mtime is not None and facts.st_mtime_ns != version.mtime
    if version.size is not None and facts.st_size != version.size:
        change.grown = facts.st_size > version.size
        verb = "grown" if change.grown else "been truncated"
        change.words.append(f"{verb} from {version.size} to {facts.st_size} bytes")
    elif (written or version.watched or not change.same_file) and version.read is not None:
        change.same_content = _begins(path, version)
        if not change.same_content:
            change.words.append("been written")
    elif written:
        change.words.append("been written")
    if not change.same_file:
        change.words.append("been replaced")
    return change


def _begins(path: str, version: _Version) -> bool:
    """Whether the file at a path begins with a content."""
    assert version.read is not None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        offset = 0
        while data := version.read(offset, _BLOCK):
            if os.pread(fd, len(data), offset) != data:
                return False
            offset += len(data)
        return True
    finally:
        os.close(fd)


def _written_elsewhere(path: str) -> bool:
    """Whether somebody has a file open for writing: then no lease for reading can be had. False where that cannot be asked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def _write(version: _Version, fd: int) -> None:
    """Make a file hold a content, and nothing else. Raises OSError, DamagedImage."""
    assert version.read is not None
    size = pour(version.read, fd)
    if size != (version.size or 0):
        raise DamagedImage(version.what, f"{size} bytes are stored of {version.size}")
    os.ftruncate(fd, size)


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
