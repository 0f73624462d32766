"""Where an export writes: streams that leave holes for zeros, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vcsimg.errors import NO_ROOM, ExportError
from vcsimg.image.units import PAGE_SIZE, PIECE_SIZE

_ZEROS = bytes(PIECE_SIZE)


class Sink:
    """Writes to a binary stream. Zeros become holes if the stream is a file that is written at its end, else they are written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sparse = _can_skip(stream)
        self._skipped = 0
        self.written = 0
        """Bytes of the output so far, holes included."""

    def data(self, data: bytes | memoryview) -> None:
        """Bytes as they are."""
        self._fill_skipped()
        self._write(data)
        self.written += len(data)

    def pages(self, data: memoryview) -> None:
        """Contents of whole pages: those that are all zeros are left out."""
        words = np.frombuffer(data, np.uint64).reshape(-1, PAGE_SIZE // 8)
        filled = np.bitwise_or.reduce(words, axis=1) != 0
        if filled.all():
            self.data(data)
            return
        edges = np.flatnonzero(np.diff(filled)) + 1
        start = 0
        for stop in [*edges.tolist(), len(filled)]:
            if filled[start]:
                self.data(data[start * PAGE_SIZE : stop * PAGE_SIZE])
            else:
                self.zeros((stop - start) * PAGE_SIZE)
            start = stop

    def copy(self, chunks: Iterable[tuple[int, memoryview | None]]) -> Iterator[int]:
        """Write chunks of whole pages (None: zeros), and yield the length of each when it is written."""
        for length, data in chunks:
            if data is None:
                self.zeros(length)
            else:
                self.pages(data)
            yield length

    def zeros(self, length: int) -> None:
        self._skipped += length
        self.written += length

    def align(self, alignment: int) -> None:
        """Zeros up to a multiple of `alignment`."""
        self.zeros(-self.written % alignment)

    def finish(self) -> None:
        """Make zeros at the end real, so that the file has its full length."""
        if self._skipped and self._sparse:
            self._skipped -= 1
            self._fill_skipped()
            self._write(b"\0")
        self._fill_skipped()
        self._stream.flush()

    def _write(self, data: bytes | memoryview) -> None:
        """All of it: a raw (unbuffered) stream may take less than it is given."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.write(rest) :]

    def _fill_skipped(self) -> None:
        if self._sparse and self._skipped:
            self._stream.seek(self._skipped, os.SEEK_CUR)
            self._skipped = 0
        while self._skipped:
            step = min(self._skipped, len(_ZEROS))
            self._write(memoryview(_ZEROS)[:step])
            self._skipped -= step


def _can_skip(stream: BinaryIO) -> bool:
    """What is skipped reads as zeros only where there is nothing yet; and O_APPEND ignores seeks."""
    if not stream.seekable():
        return False
    with contextlib.suppress(OSError):  # io.UnsupportedOperation: a stream without a descriptor
        if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND:
            return False
    position = stream.tell()
    at_end = stream.seek(0, os.SEEK_END) == position
    stream.seek(position)
    return at_end


def check_replaceable(path: Path) -> None:
    """A file may take the place of a file or of a symbolic link, and of nothing else. Raises ExportError."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # whoever makes the file says why it cannot
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise ExportError(str(path), "not a plain file, and not replaced", remedy="Name another path.")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file, mode 0600, that appears under its name (and replaces what was there) only when the block ends well.

    Raises ExportError, also where a device or the like is: /dev/null must stay what it is.
    """
    check_replaceable(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with _errors_named(path):
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                yield stream
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory, mode 0700, that appears under its name only when the block ends well; it may exist before if it is empty.

    Raises ExportError.
    """
    path = Path(os.path.abspath(path))
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with _errors_named(path):
        partial.mkdir(0o700)
        try:
            yield partial
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = {
            **{number: f"{remedy}, or write to another file system." for number, (_, remedy) in NO_ROOM.items()},
            errno.ENOTEMPTY: "Name a directory that does not exist yet, or is empty.",
            errno.EEXIST: "Name a directory that does not exist yet, or is empty.",
        }.get(error.errno or 0, "Check the path and its permissions.")
        raise ExportError(str(path), os.strerror(error.errno or 0), remedy=remedy) from error


def below(path: str) -> Path:
    """A path of the captured process as one below a directory: never out of it."""
    parts = [part for part in path.removesuffix(" (deleted)").replace("\0", "_").split("/") if part not in ("", ".", "..")]
    return Path(*parts) if parts else Path("_")


def create(path: Path) -> BinaryIO:
    """A new file, mode 0600, and the directories above it. Raises OSError."""
    make_directory(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return open(descriptor, "wb")


def make_directory(path: Path) -> None:
    """Like mkdir -p, all that are new with mode 0700."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(0o700)
