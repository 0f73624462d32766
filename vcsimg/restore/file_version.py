"""One file as it was when it was captured, and how the one that is at its path now differs from it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from vcsimg.errors import DamagedImage
from vcsimg.image.sections.contents import Content
from vcsimg.image.snapshot import Process
from vcsimg.image.versions import Read, reader
from vcsimg.restore.objects import pour

_BLOCK = 2 << 20


@dataclass
class Version:
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
        """That its content is not at hand, and why."""
        return f"the image does not hold its content{f' ({self.reason})' if self.reason else ''}"


@dataclass
class Change:
    """What has happened to a file. `same_file`: it has the inode that it had; `same_content`: known to be the bytes that it had."""

    words: list[str] = field(default_factory=list)
    grown: bool = False
    same_file: bool = True
    same_content: bool = False

    def __str__(self) -> str:
        return " and ".join(self.words)


def compare(version: Version, path: str, facts: os.stat_result) -> Change:
    """What has happened to a file since it was captured; `facts` are those of what is at `path` now."""
    change = Change(same_file=facts.st_ino == version.inode)
    written = version.mtime is not None and facts.st_mtime_ns != version.mtime
    if version.size is not None and facts.st_size != version.size:
        change.grown = facts.st_size > version.size
        verb = "grown" if change.grown else "been truncated"
        change.words.append(f"{verb} from {version.size} to {facts.st_size} bytes")
    elif (written or version.watched or not change.same_file) and version.read is not None:
        change.same_content = begins(path, version)
        if not change.same_content:
            change.words.append("been written")
    elif written:
        change.words.append("been written")
    if not change.same_file:
        change.words.append("been replaced")
    return change


def begins(path: str, version: Version) -> bool:
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


def write(version: Version, fd: int) -> None:
    """Make a file hold a content, and nothing else. Raises OSError, DamagedImage."""
    assert version.read is not None
    size = pour(version.read, fd)
    if size != (version.size or 0):
        raise DamagedImage(version.what, f"{size} bytes are stored of {version.size}")
    os.ftruncate(fd, size)
