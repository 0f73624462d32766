"""Contents of mapped files on their way into a capture: stored once, shared by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from vcsimg.delta.codec import pack_frame
from vcsimg.image.records import Record, format_records
from vcsimg.image.snapshot import FileContent
from vcsimg.store.layout import chunk_name
from vcsimg.store.objects import Entry, Oid, format_tree
from vcsimg.store.source import CHUNK


def store_file(content: FileContent, add: Callable[[bytes, bool], Oid], add_tree: Callable[[bytes], Oid]) -> Oid | None:
    """Write a file's chunks and info with `add(data, stored)`. Returns the id of its directory.

    None when the file has changed since its hash was taken: its content is gone.
    """
    entries = {}
    hasher = hashlib.sha256()
    size = 0
    for index, chunk in enumerate(_chunks(content)):
        hasher.update(chunk)
        size += len(chunk)
        entries[chunk_name(index)] = Entry(False, add(pack_frame(chunk), True))
    if hasher.hexdigest() != content.sha256 or size != content.size:
        return None
    info = {"size": str(size), "sha256": content.sha256}
    if content.build_id is not None:
        info["build-id"] = content.build_id
    entries["info"] = Entry(False, add(format_records([Record("file", info)]), False))
    return add_tree(format_tree(entries))


def _chunks(content: FileContent) -> Iterator[bytes]:
    offset = 0
    while offset < content.size:
        chunk = content.read(offset, min(CHUNK, content.size - offset))
        if len(chunk) < min(CHUNK, content.size - offset):
            return
        yield chunk
        offset += len(chunk)
