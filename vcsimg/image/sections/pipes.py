"""Section `pipes`: pipes and FIFOs. Descriptors with the same device and inode in `files` are ends of the same one."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Item


@dataclass(frozen=True, slots=True)
class Pipe(Item, kind="pipe"):
    """By the lowest descriptor that refers to this end. `capacity`: F_GETPIPE_SZ, bytes.

    `queued`: bytes that wait to be read; absent at an end that only writes. `alone`: nobody has the other end any more.
    """

    fd: int
    inode: int
    capacity: int
    queued: int | None
    alone: bool | None = None


@dataclass(frozen=True, slots=True)
class PipeData(Item, kind="pipe_data"):
    """Bytes in the pipe, in order; a packet each (O_DIRECT) or all at once. Present when the process has the reading end."""

    fd: int
    data: bytes
