"""Section `ipc` of the root process: System V IPC objects that the processes of the capture use, or may use."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Item, Octal


@dataclass(frozen=True, slots=True)
class Segment(Item, kind="shm"):
    """Shared memory. `mode` with SHM_DEST (0o1000): it goes when the last process detaches it. Content: that of the regions that map it, or `shm_data`."""

    id: int
    key: int
    mode: Octal
    size: int
    uid: int
    gid: int
    attached: bool


@dataclass(frozen=True, slots=True)
class SegmentData(Item, kind="shm_data"):
    """Content of a segment that no process has attached; what is not said is zeros."""

    segment: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Semaphores(Item, kind="sem"):
    """A set of semaphores."""

    id: int
    key: int
    mode: Octal
    uid: int
    gid: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Queue(Item, kind="msg"):
    """A message queue; `limit`: the most bytes in it."""

    id: int
    key: int
    mode: Octal
    uid: int
    gid: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class QueuedMessage(Item, kind="message"):
    """A message in the queue with the id `queue`, oldest first."""

    queue: int
    type: int
    data: bytes
