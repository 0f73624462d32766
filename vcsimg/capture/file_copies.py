"""What is known of a file's content without its bytes: a key for each part of it, by which the next look finds what has changed.

Parts lie at fixed offsets (FILE_PART), so a file that is appended to keeps all but its last one. Only changed parts are kept as bytes, until
the store has them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import xxhash

from vcsimg.image.snapshot import FILE_PART, FileContent

_SEED = int.from_bytes(os.urandom(8), "little")
"""So that nobody can make two parts of the same key beforehand."""


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def copy(self) -> _Hash: ...

    def hexdigest(self) -> str: ...


class Scratch:
    """Bytes on their way to the store, in an unnamed file: in the page cache, not on our heap."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._end = 0

    def put(self, data: bytes | memoryview) -> int:
        """Keep bytes; where they are. Raises OSError."""
        if self._fd < 0:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._fd = os.dup(file.fileno())
        place = self._end
        os.pwrite(self._fd, data, place)
        self._end += len(data)
        return place

    def get(self, place: int, size: int) -> bytes:
        return os.pread(self._fd, size, place)

    def clear(self) -> None:
        """None of it is needed any more."""
        if self._end:
            os.ftruncate(self._fd, 0)
            self._end = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._end = 0


class FileCopy:
    """One file. `size`: bytes; `keys`: of its parts."""

    def __init__(self, scratch: Scratch) -> None:
        self.size = 0
        self.keys: list[bytes] = []
        self._scratch = scratch
        self._states: list[_Hash] = [hashlib.sha256()]  # of the bytes before each part, and of all
        self._kept: dict[int, tuple[int, int]] = {}

    @property
    def sha256(self) -> str:
        return self._states[-1].hexdigest()

    def replace(self, first: int, parts: Iterable[memoryview]) -> None:
        """From part `first` on the file has these parts, and ends with the last. All but that are of FILE_PART bytes; the caller may use
        their memory again. Raises OSError."""
        keys = self.keys[:first]
        self.size = first * FILE_PART
        state: _Hash | None = None
        for index, part in enumerate(parts, first):
            key = xxhash.xxh3_128_digest(part, _SEED)
            known = index < len(self.keys) and self.keys[index] == key
            if state is None and not known:
                state = self._states[index].copy()
                del self._states[index + 1 :]
            if not known:
                self._kept[index] = self._scratch.put(part), len(part)
            if state is not None:
                state.update(part)
                self._states.append(state.copy())
            keys.append(key)
            self.size += len(part)
        del self._states[len(keys) + 1 :]
        self.keys = keys

    def stored(self) -> None:
        """The store has all of it."""
        self._kept.clear()

    def content(self, again: Callable[[int, int], bytes]) -> FileContent:
        """What the store gets. `again(offset, length)` reads a part that was stored before, should the store no longer know it."""
        keys, kept, scratch, size = tuple(self.keys), dict(self._kept), self._scratch, self.size

        def part(index: int) -> bytes:
            if index in kept:
                return scratch.get(*kept[index])
            return again(index * FILE_PART, min(FILE_PART, size - index * FILE_PART))

        def read(offset: int, length: int) -> bytes:
            end = min(offset + length, size)
            found = b"".join(part(index) for index in range(offset // FILE_PART, -(-end // FILE_PART)))
            return found[offset % FILE_PART :][: end - offset]

        return FileContent(self.sha256, size, None, read, keys)


def key_of(part: bytes) -> bytes:
    """The key of a part."""
    return xxhash.xxh3_128_digest(part, _SEED)
