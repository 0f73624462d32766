"""Mapped files: found, identified by content, read. Each content is hashed once as long as the file does not change."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vcsimg.errors import ProcessChanged
from vcsimg.image.region import Region
from vcsimg.image.snapshot import FileContent, MappedFile

_CHUNK = 1 << 20
_WAYS = 64
"""Regions that are remembered of one file."""
_HELD = 64
"""Files that are held open at most."""
_NOTE_LIMIT = 1 << 16
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3

_REMEDY = "Capture it again."

Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class _Known:
    signature: Signature | None
    file: MappedFile
    content: FileContent | None
    reader: _Reader | None = None


class FileTable:
    """The files that the processes of a session map.

    A file is known again by device, inode, size, mtime and ctime; only when one of them changes is it read again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], _Known] = {}
        self._held: list[_Reader] = []

    def lookup(self, pid: int, region: Region) -> MappedFile:
        """The file behind a region of a live process, its content hashed. `sha256` is None if this user cannot read it."""
        key = (region.device, region.inode)
        known = self._known.get(key)
        with _opened(pid, region) as fd:
            if fd is None:
                if known is None or known.signature is not None:
                    self._known[key] = _Known(None, _unreadable(region), None)
                return self._known[key].file
            signature = _signature(os.fstat(fd))
            if known is not None and known.signature == signature:
                assert known.reader is not None
                known.reader.add(pid, region)
                return known.file
            file = MappedFile(
                device=region.device,
                inode=region.inode,
                path=region.name,
                size=signature[2],
                sha256=_sha256(fd),
                build_id=build_id(fd),
            )
        assert file.sha256 is not None
        reader = _Reader(pid, region, signature)
        content = FileContent(file.sha256, file.size, file.build_id, reader.read)
        self._known[key] = _Known(signature, file, content, reader)
        return file

    def is_current(self, pid: int, region: Region) -> bool:
        """Whether the file behind a region is as lookup() found it, as far as it can be reached."""
        known = self._known.get((region.device, region.inode))
        if known is None or known.signature is None:
            return True
        for path in _paths(pid, region):
            with suppress(OSError):
                facts = os.stat(path)
                if _is_behind(region, facts):
                    return _signature(facts) == known.signature
        return True

    def hold(self, pid: int, region: Region) -> None:
        """While the process is stopped: see to it that a deleted file that lookup() found can be read until release(), also when the process gives it up, and
        with it the last way to it."""
        known = self._known.get((region.device, region.inode))
        if known is not None and known.reader is not None and len(self._held) < _HELD and known.reader.hold(pid, region):
            self._held.append(known.reader)

    def release(self) -> None:
        """Hold no file any more: deleted ones take room on the disk as long as somebody does."""
        for reader in self._held:
            reader.release()
        self._held.clear()

    def content(self, file: MappedFile) -> FileContent | None:
        """The content of a file that lookup() found, or None if it could not be read."""
        known = self._known.get((file.device, file.inode))
        return known.content if known else None


class _Reader:
    """Reads a file again by a way on which it was found. Opened for every call: a process can map more files than we may hold open. A
    deleted file can be reached only through a region that is there just as it was, so others are tried when it is not."""

    def __init__(self, pid: int, region: Region, signature: Signature) -> None:
        self._signature = signature
        self._path = region.name
        self._ways: dict[tuple[int, int, int], Region] = {}
        self._fd: int | None = None
        self.add(pid, region)

    def add(self, pid: int, region: Region) -> None:
        """Another way, to be tried first."""
        key = (pid, region.start, region.end)
        self._ways.pop(key, None)
        self._ways[key] = region
        if len(self._ways) > _WAYS:
            del self._ways[next(iter(self._ways))]

    def hold(self, pid: int, region: Region) -> bool:
        """Keep it open from now on. Whether it was not, and is."""
        if self._fd is not None:
            return False
        with _opened(pid, region) as fd, suppress(OSError):
            if fd is not None:
                self._fd = os.dup(fd)
        return self._fd is not None

    def release(self) -> None:
        """Close it, if it is held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), fewer at the end. Raises ProcessChanged if the file is no longer the one that was
        hashed, or cannot be reached because it was deleted, and the process does not map it any more."""
        if self._fd is not None:
            self._check(self._fd)
            return os.pread(self._fd, length, offset)
        for key, region in reversed(self._ways.copy().items()):
            with _opened(key[0], region) as fd:
                if fd is None:
                    continue
                self._check(fd)
                if key != next(reversed(self._ways)):
                    self.add(key[0], region)
                return os.pread(fd, length, offset)
        raise ProcessChanged(self._pid, f"its file {self._path} was deleted and cannot be reached any more", remedy=_REMEDY)

    def _check(self, fd: int) -> None:
        if _signature(os.fstat(fd)) != self._signature:
            raise ProcessChanged(self._pid, f"its file {self._path} changed while it was being captured", remedy=_REMEDY)

    @property
    def _pid(self) -> int:
        return next(reversed(self._ways))[0]


@contextmanager
def _opened(pid: int, region: Region) -> Iterator[int | None]:
    """The file behind a region, opened for reading: through the kernel's own link if we may, else by name in the root of
    the process, if that is still the same file."""
    for path in _paths(pid, region):
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                continue  # opening a device can have effects
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            facts = os.fstat(fd)
            if _is_behind(region, facts):
                yield fd
                return
        finally:
            os.close(fd)
    yield None


def _paths(pid: int, region: Region) -> list[str]:
    """Where the file behind a region may be found."""
    name = region.name.removesuffix(" (deleted)")
    paths = [f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}"]
    if not region.deleted:
        paths.append(f"/proc/{pid}/root{name}")
    paths.append(f"/proc/{pid}/exe")
    if not region.deleted:
        paths.append(name)  # the process has ended: if we see its file system as it did, the file is still there
    return paths


def _is_behind(region: Region, facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_ino == region.inode and _same_device(facts.st_dev, region.device)


def _same_device(number: int, device: str) -> bool:
    """Whether st_dev is the device in /proc/PID/maps. Stacked and multi-device file systems (overlay, btrfs) show an anonymous
    device, major 0, in one of the two: then the inode must do."""
    major, minor = (int(part, 16) for part in device.split(":"))
    return (os.major(number), os.minor(number)) == (major, minor) or major == 0 or os.major(number) == 0


def _signature(facts: os.stat_result) -> Signature:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _unreadable(region: Region) -> MappedFile:
    return MappedFile(region.device, region.inode, region.name, 0, None)


def _sha256(fd: int) -> str:
    digest = hashlib.sha256()
    position = 0
    while data := os.pread(fd, _CHUNK, position):
        digest.update(data)
        position += len(data)
    return digest.hexdigest()


def build_id(fd: int) -> str | None:
    """The GNU build id of an ELF file (64-bit), hexadecimal, or None. Source: elf(5), notes of type NT_GNU_BUILD_ID."""
    header = os.pread(fd, 64, 0)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        return None
    (table,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    if size < 56 or table > 1 << 40:
        return None
    headers = os.pread(fd, size * count, table)
    for index in range(len(headers) // size):
        kind, _, offset = struct.unpack_from("<IIQ", headers, index * size)
        (length,) = struct.unpack_from("<Q", headers, index * size + 32)
        if kind == _PT_NOTE and offset < 1 << 40 and (found := _find_note(os.pread(fd, min(length, _NOTE_LIMIT), offset))):
            return found
    return None


def _find_note(notes: bytes) -> str | None:
    position = 0
    while position + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, position)
        name_at = position + 12
        data_at = name_at + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[data_at : data_at + size].hex()
        position = data_at + (size + 3 & ~3)
    return None
