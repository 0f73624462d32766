"""Contents of files on their way into a capture: stored once, shared by content.

Mapped files hardly ever change, so they are cut in large chunks. Files that may change from capture to capture have smaller parts: those
that the capture before has, too, are neither read nor written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from vcsimg.delta.frames import pack_frame
from vcsimg.image.records import Record, format_records
from vcsimg.image.snapshot import FILE_PART, FileContent
from vcsimg.store.layout import chunk_directory, chunk_name, part_name
from vcsimg.store.objects import Entry, Oid, format_tree
from vcsimg.store.source import CHUNK

Parts = dict[bytes, Oid]
"""Blobs of parts, by their keys (FileContent.parts), and directories of parts, by those of all."""
_DIRECTORY = b"directory"
_PARTS = CHUNK // FILE_PART


class FileWriter:
    """Writes with `add(data, stored)` and `add_tree(data)`. It remembers the parts of the contents that the last capture had."""

    def __init__(self) -> None:
        self._known: Parts = {}
        self._used: Parts = {}

    def begin(self) -> None:
        """A new capture."""
        self._known, self._used = self._used, {}

    def keep(self, content: FileContent | None) -> None:
        """The capture has a content that is stored already."""
        keys = content.parts or () if content is not None else ()
        for key in (*keys, *map(_key_of_chunk, _chunks_of(keys))):
            if key in self._known:
                self._used[key] = self._known[key]

    def store(self, content: FileContent, add: Callable[[bytes, bool], Oid], add_tree: Callable[[bytes], Oid]) -> Oid | None:
        """Write a file's parts and info. Returns the id of its directory.

        None when the file has changed since its hash was taken: its content is gone. Raises what reading it raises.
        """
        info = {"size": str(content.size), "sha256": content.sha256}
        if content.build_id is not None:
            info["build-id"] = content.build_id
        entries = self._parts(content, add, add_tree) if content.parts is not None else _whole(content, add)
        if entries is None:
            return None
        entries["info"] = Entry(False, add(format_records([Record("file", info)]), False))
        return add_tree(format_tree(entries))

    def _parts(self, content: FileContent, add: Callable[[bytes, bool], Oid], add_tree: Callable[[bytes], Oid]) -> dict[str, Entry]:
        keys = content.parts or ()
        blobs = []
        for index, key in enumerate(keys):
            oid = self._find(key)
            if oid is None:
                oid = add(pack_frame(content.read(index * FILE_PART, FILE_PART)), True)
            self._used[key] = oid
            blobs.append(Entry(False, oid))
        if len(blobs) == 1:
            return {chunk_name(0): blobs[0]}
        entries = {}
        for chunk, parts in enumerate(_chunks_of(keys)):
            key = _key_of_chunk(parts)
            oid = self._find(key)
            if oid is None:
                first = chunk * _PARTS
                oid = add_tree(format_tree({part_name(part): blobs[first + part] for part in range(len(parts))}))
            self._used[key] = oid
            entries[chunk_directory(chunk)] = Entry(True, oid)
        return entries

    def _find(self, key: bytes) -> Oid | None:
        return self._used.get(key) or self._known.get(key)


def _chunks_of(keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [keys[first : first + _PARTS] for first in range(0, len(keys), _PARTS)]


def _key_of_chunk(keys: Sequence[bytes]) -> bytes:
    return _DIRECTORY + b"".join(keys)


def _whole(content: FileContent, add: Callable[[bytes, bool], Oid]) -> dict[str, Entry] | None:
    """Chunks of a file; None if it has another hash."""
    entries = {}
    hasher = hashlib.sha256()
    size = 0
    for index, chunk in enumerate(_chunks(content)):
        hasher.update(chunk)
        size += len(chunk)
        entries[chunk_name(index)] = Entry(False, add(pack_frame(chunk), True))
    return entries if hasher.hexdigest() == content.sha256 and size == content.size else None


def _chunks(content: FileContent) -> Iterator[bytes]:
    offset = 0
    while offset < content.size:
        chunk = content.read(offset, min(CHUNK, content.size - offset))
        if len(chunk) < min(CHUNK, content.size - offset):
            return
        yield chunk
        offset += len(chunk)
