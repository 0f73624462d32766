"""Files as processes have them: which ones, by what links they are reached, how they are read. Nobody waits for a file server that is dead."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TypeVar

from vcsimg.capture.state.descriptors import O_ACCMODE, O_PATH, Descriptor
from vcsimg.image.region import Region
from vcsimg.image.snapshot import FILE_PART
from vcsimg.kernel import statx

_BLOCK = 1 << 20
_PATIENCE = 5.0
"""Seconds that a file server has to give out a file."""
_REGULAR = 0o100000
_TYPE = 0o170000
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_T = TypeVar("_T")

Key = tuple[str, int]
"""Device and inode."""
Signature = tuple[int, int, int]
"""Size, mtime, ctime."""


@dataclass(frozen=True, slots=True)
class Use:
    """A file as a process has it: `link` leads to it, `text` is its path. `mark`: of its state; `region`: it is mapped to be written."""

    pid: int
    link: str
    text: str
    where: statx.Statx
    written: bool
    appended: bool
    leased: bool
    mark: bytes
    region: Region | None = None

    @property
    def key(self) -> Key:
        return self.where.device, self.where.inode

    @property
    def signature(self) -> Signature:
        return self.where.size, self.where.mtime, self.where.ctime


def uses_of_running(pid: int) -> Iterator[Use]:
    """Regular files that have a name and are open in a process that runs. Most descriptors of large servers are sockets, of which no more than the link is
    read."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        link = f"{folder}/{name}"
        try:
            text = os.readlink(link)
            if not text.startswith("/") or text.startswith("/memfd:"):
                continue
            raw = statx.statx_raw(link)
            where = statx.parse(raw)
            if where.mode & _TYPE != _REGULAR or not where.links:
                continue
            with open(f"/proc/{pid}/fdinfo/{name}", "rb") as file:
                info = file.read()
        except OSError:
            continue  # closed meanwhile
        flags = int(info[info.index(b"flags:\t") + 7 :].split(None, 1)[0], 8)
        if not flags & O_PATH:
            yield _use(pid, link, text, where, flags, info, mark_of(raw))


def is_file(descriptor: Descriptor) -> bool:
    """Whether it leads to a regular file that has a name."""
    return descriptor.type == "regular" and not descriptor.flags & O_PATH and descriptor.where.links > 0


def use_of(pid: int, descriptor: Descriptor) -> Use:
    """A file by a descriptor that was read while the process was stopped."""
    link = f"/proc/{pid}/fd/{descriptor.fd}"
    return _use(pid, link, descriptor.text, descriptor.where, descriptor.flags, descriptor.info, mark_of(descriptor.raw))


def uses_of_regions(pid: int, regions: Iterable[Region]) -> Iterator[Use]:
    """Regular files through regions that map them to be written."""
    for region in regions:
        # The kernel's own link, for those who may follow it, asks no file system for names.
        for link in (f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}", f"/proc/{pid}/root{region.name}"):
            try:
                where = statx.statx(link)
            except OSError:
                continue
            if where.inode == region.inode and where.mode & _TYPE == _REGULAR:
                yield Use(pid, link, region.name, where, True, False, False, b"", region)
                break


def _use(pid: int, link: str, text: str, where: statx.Statx, flags: int, info: bytes, mark: bytes) -> Use:
    written = flags & O_ACCMODE != os.O_RDONLY
    return Use(pid, link, text, where, written, written and bool(flags & os.O_APPEND), b"LEASE" in info, mark)


def mark_of(raw: bytes) -> bytes:
    """Of a struct statx, what tells the file, and whether it has changed: device, inode, size, ctime."""
    return raw[136:144] + raw[32:48] + raw[96:112]


def only_appended(uses: Iterable[Use]) -> bool:
    """Whether all that the processes can do is to append."""
    return all(use.appended or not use.written for use in uses)


@contextmanager
def opened(use: Use) -> Iterator[int]:
    """The file, for reading. Raises OSError; FileNotFoundError where it is another one."""
    try:
        fd = os.open(use.link, _FLAGS | os.O_NOATIME)
    except PermissionError:
        fd = os.open(use.link, _FLAGS)  # it is another user's
    try:
        facts = os.fstat(fd)  # not statx(): that is for one thread only
        if (statx.device_name(os.major(facts.st_dev), os.minor(facts.st_dev)), facts.st_ino) != use.key:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), use.link)
        yield fd
    finally:
        os.close(fd)


def patiently(read: Callable[[], _T]) -> _T:
    """The result of a call that may wait for a server that is dead: given up after a while, and left to itself. Raises OSError."""
    results: Queue[_T | OSError] = Queue()

    def run() -> None:
        try:
            results.put(read())
        except OSError as error:
            results.put(error)

    threading.Thread(target=run, name="vcsimg-served", daemon=True).start()
    try:
        result = results.get(timeout=_PATIENCE)
    except Empty:
        raise OSError(errno.ETIMEDOUT, "its file server does not answer") from None
    if isinstance(result, OSError):
        raise result
    return result


def read_served(use: Use, size: int) -> tuple[Signature, bytes, Signature]:
    """The first `size` bytes of a file, and its signatures before and after. Raises OSError."""
    with opened(use) as fd:
        before = signature_of(fd)
        data = b"".join(bytes(part) for part in parts_of(fd, min(size, before[0])))
        return before, data, signature_of(fd)


def signature_now(use: Use) -> Signature | None:
    """The signature; None where it cannot be opened any more."""
    try:
        with opened(use) as fd:
            return signature_of(fd)
    except OSError:
        return None


def signature_of(fd: int) -> Signature:
    """The signature of an open file. Raises OSError."""
    facts = os.fstat(fd)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def parts_of(fd: int, size: int) -> Iterator[memoryview]:
    """The first bytes of a file by parts, in memory that is used again."""
    buffer = memoryview(bytearray(min(_BLOCK, max(size, 1))))
    position = 0
    while position < size:
        wanted = min(_BLOCK, size - position)
        done = 0
        while done < wanted and (got := os.preadv(fd, [buffer[done:wanted]], position + done)):
            done += got
        yield from cut(buffer[:done])
        position += done
        if done < wanted:
            return


def cut(data: memoryview) -> Iterator[memoryview]:
    """Data by parts."""
    for offset in range(0, len(data), FILE_PART):
        yield data[offset : offset + FILE_PART]


def read_at_once(fd: int, offset: int, end: int) -> bytes:
    """Bytes [offset, end). Raises OSError if there are fewer."""
    data = os.pread(fd, end - offset, offset)
    if len(data) != end - offset:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return data
