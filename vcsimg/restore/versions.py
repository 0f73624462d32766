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
from collections.abc import Iterator
from contextlib import suppress

from vcsimg.errors import RestoreError
from vcsimg.image.sections.files import File, MessageQueue
from vcsimg.image.sections.item import select
from vcsimg.image.versions import contents
from vcsimg.restore.context import Context
from vcsimg.restore.file_version import Change, Version, begins, compare, write
from vcsimg.restore.objects import nameless
from vcsimg.restore.rollback import Action, Cut, InPlace, Replacement

_STATELESS = ("/proc", "/sys")
"""File systems whose files are made up when they are read."""
_KEEP = "--files keep"


class Versions:
    """All files of an image that are at their paths. What is found is noted in `context`: in `places`, where to open files that are not to be
    opened at their own path."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._actions: list[Action] = []
        self._done: list[Action] = []
        self._owned: list[int] = []

    def prepare(self) -> None:
        """Before anything of the processes is made; changes nothing that can be seen by its name. Raises RestoreError, HostileImage,
        DamagedImage."""
        refused: list[tuple[Version, str]] = []
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
            change = compare(version, path, facts)
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

    def _all(self) -> Iterator[Version]:
        found: dict[tuple[str, int], Version] = {}
        for process in self._context.snapshot.processes:
            stored = {(content.device, content.inode): content for content in contents(process)}
            queues = {queue.fd for queue in select(process.section("files"), MessageQueue)}
            for file in select(process.section("files"), File):
                if file.type != "regular" or file.flags & os.O_PATH or file.fd in queues:
                    continue
                content = stored.pop((file.device, file.inode), None) if file.deleted else stored.get((file.device, file.inode))
                if file.deleted:
                    continue  # no path leads to it
                what = f"process {process.pid} fd {file.fd} (file {file.path})"
                written = file.flags & os.O_ACCMODE != os.O_RDONLY
                version = found.setdefault(
                    (file.path, file.inode), Version(what, file.path, file.inode, file.size, file.mtime, file.mode, written)
                )
                version.written |= written
                if content is not None:
                    version.take(process, content)
            for content in stored.values():
                what = f"process {process.pid} mapped file {content.path}"
                found.setdefault(
                    (content.path, content.inode),
                    Version(what, content.path, content.inode, content.size, content.mtime, content.mode, content.written),
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

    def _gone(self, version: Version) -> None:
        if version.read is None:
            raise RestoreError(version.what, f"the file is gone, and {version.lacks()}")
        if self._context.options.files == "rollback":
            self._act(Replacement(version, self._context.root, "was gone"))
            return
        fd = nameless(self._context.root, version.path, version.mode)
        self._owned.append(fd)
        write(version, fd)
        self._context.places[version.path, version.inode] = f"/proc/self/fd/{fd}"
        self._context.notes.append(
            f"{version.what} is gone: in its place is a copy without a name, which goes when the process ends; --files rollback puts it back at its path"
        )

    def _bring_back(self, version: Version, change: Change, path: str, facts: os.stat_result) -> None:
        said = f"has {change} since the capture"
        only_grown = change.same_file and change.grown
        if version.read is None:
            if not only_grown:
                raise RestoreError(version.what, f"the file {said}, and {version.lacks()}", option=_KEEP)
            if version.written:
                self._act(Cut(version, self._context.root, said))
            else:
                self._context.notes.append(f"{version.what} {said}; it is only read, and stays as it is")
            return
        in_place = change.same_file and (facts.st_nlink > 1 or (only_grown and _written_elsewhere(path) and begins(path, version)))
        self._act(InPlace(version, self._context.root, said) if in_place else Replacement(version, self._context.root, said))

    def _act(self, action: Action) -> None:
        self._actions.append(action)
        try:
            place = action.prepare()
        except OSError as error:
            link = error.errno == errno.ELOOP
            reason = "a folder on its path is a symbolic link now" if link else f"it cannot be brought back: {error.strerror}"
            raise RestoreError(action.version.what, reason, option=_KEEP) from None
        if place is not None:
            self._context.places[action.version.path, action.version.inode] = place


def _nothing(offset: int, length: int) -> bytes:
    return b""


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
