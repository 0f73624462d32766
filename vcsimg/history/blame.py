"""Questions over many captures: when did these bytes change, and since when does something hold?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vcsimg.errors import AccessError
from vcsimg.image.snapshot import Snapshot
from vcsimg.image.units import Range


class Captured(Protocol):
    """One capture, as far as its place in history goes."""

    @property
    def id(self) -> str: ...

    @property
    def parents(self) -> Sequence[str]: ...


class Captures(Protocol):
    """What history needs of a store. Revisions are commit ids, or whatever the store understands."""

    def capture(self, rev: str) -> Captured:
        """What the commit says of a capture. Raises UnknownRevision."""

    def load(self, rev: str) -> Snapshot:
        """Its image, memory read when asked for."""

    def memory_id(self, rev: str, pid: int, numbers: Sequence[int]) -> Hashable:
        """Something cheap to get that is equal for two captures only if the map, the mapped files and these pieces of the process
        are the same in both; None if the capture does not have the process."""


@dataclass(frozen=True, slots=True)
class BytesChange:
    """A capture that changed a range of memory. `before` is None if the range had no content before, or there is no capture
    before; `after` is None if it has none since."""

    capture: str
    address: int
    before: bytes | None
    after: bytes | None


def range_history(captures: Captures, rev: str, pid: int, address: int, length: int) -> Iterator[BytesChange]:
    """Every capture that changed [address, address + length) of a process, newest first, from `rev` back along first parents.

    The last one is the capture with which the range appeared in this history. Memory is read only of captures in which
    the pieces of the range, the map or the mapped files differ from the capture after. Raises UnknownRevision, DamagedImage.
    """
    if length <= 0:
        raise ValueError(f"not a length: {length}")
    numbers = Range(address, address + length).pieces()
    newer = captures.capture(rev)
    newer_id = captures.memory_id(newer.id, pid, numbers)
    content = _content(captures, newer.id, pid, address, length) if newer_id is not None else None
    while newer.parents:
        older = captures.capture(newer.parents[0])
        older_id = captures.memory_id(older.id, pid, numbers)
        if older_id != newer_id:
            before = _content(captures, older.id, pid, address, length) if older_id is not None else None
            if before != content:
                yield BytesChange(newer.id, address, before, content)
            content = before
        newer, newer_id = older, older_id
    if content is not None:
        yield BytesChange(newer.id, address, None, content)


def blame(captures: Captures, rev: str, pid: int, address: int, length: int) -> BytesChange | None:
    """The capture that last changed a range of memory, looking back from `rev`; None if it never had any content."""
    return next(range_history(captures, rev, pid, address, length), None)


def first_where(captures: Captures, revs: Sequence[str], predicate: Callable[[Snapshot], bool]) -> str | None:
    """The first of `revs` (oldest first) whose image meets a condition that holds from some capture on; None if it never does.

    Looks at about log2(len(revs)) images. If the condition comes and goes, the answer is one capture that meets it while the one
    before does not, or the first.
    """
    low, high = 0, len(revs)  # it does not hold before `low`; it holds from `high` on
    while low < high:
        middle = (low + high) // 2
        if predicate(captures.load(revs[middle])):
            high = middle
        else:
            low = middle + 1
    return revs[low] if low < len(revs) else None


def _content(captures: Captures, rev: str, pid: int, address: int, length: int) -> bytes | None:
    try:
        process = captures.load(rev).process(pid)
        return process.memory.read(address, length) if process.memory is not None else None
    except (KeyError, AccessError):
        return None
