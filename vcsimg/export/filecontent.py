"""The content of a mapped file, from wherever the image has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vcsimg.image.pages import ImageMemory
from vcsimg.image.snapshot import MappedFile, Process, Snapshot

Read = Callable[[int, int], bytes]
"""read(offset, length): bytes [offset, offset + length)."""


def file_content(snapshot: Snapshot, process: Process, file: MappedFile) -> tuple[int, Read] | None:
    """Size of a mapped file, and how to read it; None if the image does not hold it."""
    if file.sha256 is None:
        return None
    if file.sha256 in snapshot.files:
        fresh = snapshot.files[file.sha256]
        return fresh.size, fresh.read
    if isinstance(process.memory, ImageMemory):
        size = process.memory.files.size(file.sha256)
        if size is not None:
            return size, partial(process.memory.files.read, file.sha256)
    return None
