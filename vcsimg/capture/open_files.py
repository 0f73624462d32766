"""Content of the files that processes have open: those that they can write to, and small ones.

    prepare()   while they run: files that are new, or have other times than before, are read
    secure()    while they are stopped: times are compared again; what has changed since is read if it is little
    finish()    when they run again: the rest is read, and counts only if nothing shows a change since the stop

The times of a file tell that it was written, with two exceptions. The kernel's clock for them advances in steps of up to 10 ms, so content
that was read within a step of the last change is not trusted (git calls such files racily clean). And writing through a mapping need not
change them: what is mapped to be written is therefore taken from the memory of the process, which is captured anyway.

A log must not cost its size whenever a line is added. A file to which the processes can only append (O_APPEND) keeps its beginning: of it
only the end is read in the stop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vcsimg.capture.file_copies import FileCopy, Scratch, key_of
from vcsimg.capture.file_uses import (
    Key,
    Signature,
    Use,
    cut,
    is_file,
    mark_of,
    only_appended,
    opened,
    parts_of,
    patiently,
    read_at_once,
    read_served,
    signature_now,
    signature_of,
    use_of,
    uses_of_regions,
    uses_of_running,
)
from vcsimg.capture.state.descriptors import Descriptor
from vcsimg.capture.state.paths import resolve
from vcsimg.errors import ProcessChanged
from vcsimg.image.region import Region
from vcsimg.image.sections.contents import Content
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import FILE_PART, FileContent, Section
from vcsimg.image.versions import covers
from vcsimg.kernel import procfs
from vcsimg.kernel.filesystems import Kind, kinds

LIMIT = 64 << 20
"""Bytes of one file that is open for writing, if nothing else is said."""

_SMALL = 64 << 10
"""Bytes of a file that is only read."""
_ALL = 16
"""So many times the limit for all files of a capture together."""
_IN_THE_STOP = 4 << 20
"""Bytes that are read while the processes are stopped, at about 4 GB/s."""
_TICK = 20_000_000
"""Nanoseconds: twice the longest step of the kernel's clock for times of files (a jiffy with HZ=100)."""

_MANY_MOUNTS = 300
"""So many are looked up only once: reading about them takes 2 µs each."""


@dataclass
class _Known:
    """What is known of a file between captures. `copy` is right for the file with `signature` (None: with none); `settled`: a change after it
    was read would show there. `steady`: all that the processes could do was to append. `reason`: it could not be read."""

    copy: FileCopy
    signature: Signature | None = None
    settled: bool = False
    steady: bool = False
    reason: str = ""


@dataclass
class _Outcome:
    """What becomes of a file in this capture. Its content is not saved for a `reason` (`noteworthy`: one that a user does not expect; none is
    worth a record where it is `made_up` when it is read), or is `in_memory` of these processes, or is the copy when `parts` have been put into
    it from part `first` on; `later`: when it has been read again."""

    uses: list[Use]
    in_memory: frozenset[int] = frozenset()
    made_up: bool = False
    reason: str | None = None
    noteworthy: bool = False
    first: int = 0
    parts: bytes | None = None
    later: bool = False
    content: FileContent | None = None

    @property
    def use(self) -> Use:
        return self.uses[0]

    @property
    def written(self) -> bool:
        return any(use.written for use in self.uses)

    @property
    def appended(self) -> bool:
        """All that the processes can do is to append."""
        return only_appended(self.uses)

    @property
    def mapped(self) -> bool:
        """Some of it is mapped to be written."""
        return any(use.region is not None for use in self.uses)

    def fails(self, reason: str) -> None:
        """It should have been saved, and cannot."""
        self.reason, self.noteworthy = reason, self.written


class OpenFiles:
    """Of all processes of a session. `limit`: bytes of a file that is open for writing; 0: no contents are kept."""

    def __init__(self, scratch: Path, limit: int = LIMIT) -> None:
        self._limit = limit
        self._scratch = Scratch(scratch)
        self._known: dict[Key, _Known] = {}
        self._mapped: set[Key] = set()
        self._mounts: dict[int, Kind] = {}
        self._outcomes: dict[Key, _Outcome] = {}
        self._stopped_at = 0

        self._busy: dict[Key, Signature] = {}
        self._marks: set[bytes] = set()
        self._tables: Mapping[int, Iterable[Descriptor]] = {}
        self._room = 0

    def close(self) -> None:
        """Forget everything."""
        self._scratch.close()
        self._known.clear()
        self._outcomes.clear()

    def prepare(self, pids: Iterable[int]) -> None:
        """While they run."""
        if not self._limit:
            return
        if len(self._mounts) < _MANY_MOUNTS:
            self._mounts.clear()  # their ids are used again
        found: dict[Key, list[Use]] = {}
        for pid in pids:
            for use in uses_of_running(pid):
                found.setdefault(use.key, []).append(use)
                if use.where.mount not in self._mounts:
                    self._learn_mounts(use)
        self._marks = set()
        for key, uses in found.items():
            # One that is written all the time, and too large for the stop, is not read in vain.
            busy = self._busy.get(key, uses[0].signature) != uses[0].signature
            wanted = not busy and key not in self._mapped and self._kind(uses[0]) is not Kind.OTHER and not self._unwanted(uses)
            if wanted:
                known = self._known.get(key)
                if known is None or not known.settled or known.signature != uses[0].signature:
                    known = self._read(uses[0])
                known.steady = only_appended(uses)
                if not known.settled or known.signature != uses[0].signature:
                    continue
            if not busy:
                self._marks.update(use.mark for use in uses)

    def secure(self, tables: Mapping[int, Iterable[Descriptor]], regions: Mapping[int, Sequence[Region]]) -> None:
        """While they are stopped. `tables`: descriptors by process; `regions`: those through which they write to files.

        Hardly more is done for most files than to see that they have not changed since prepare().
        """
        self._outcomes = {}
        self._tables = tables if self._limit else {}
        if not self._limit:
            return
        self._stopped_at = time.time_ns()
        self._room = _ALL * self._limit
        self._mapped = set()
        mapped = [use for pid, found in regions.items() for use in uses_of_regions(pid, found)]
        suspects = {use.key for use in mapped}
        for table in tables.values():
            for descriptor in table:
                if is_file(descriptor) and mark_of(descriptor.raw) not in self._marks:
                    suspects.add((descriptor.where.device, descriptor.where.inode))
        if suspects:
            room = _IN_THE_STOP
            for outcome in self._outcomes_of(mapped, suspects):
                room -= self._secure(outcome, room)

    def _outcomes_of(self, mapped: Iterable[Use], keys: Container[Key] | None = None) -> list[_Outcome]:
        """Of the files with these keys; None: of all that have none yet."""
        found: dict[Key, _Outcome] = {}
        for pid, table in self._tables.items():
            for descriptor in table:
                if not is_file(descriptor):
                    continue
                key = descriptor.where.device, descriptor.where.inode
                if key in keys if keys is not None else key not in self._outcomes:
                    found.setdefault(key, _Outcome([])).uses.append(use_of(pid, descriptor))
        for use in mapped:
            found.setdefault(use.key, _Outcome([])).uses.append(use)
        self._outcomes.update(found)
        return list(found.values())

    def _unwanted(self, uses: Sequence[Use]) -> str | None:
        """Why a file is not to be read."""
        size = uses[0].where.size
        if any(use.leased for use in uses):
            return "there is a lease on it, which reading it would break"
        if any(use.written for use in uses):
            return f"it has {size} bytes, and up to {self._limit} are kept (--file-content)" if size > self._limit else None
        return f"it is only read, and has more than {_SMALL} bytes" if size > min(_SMALL, self._limit) else None

    def _kind(self, use: Use) -> Kind:
        return self._mounts.get(use.where.mount, Kind.OTHER)

    def _learn_mounts(self, use: Use) -> None:
        """What kind of file system each mount is; one that is detached, or that the kernel does not name, is not known."""
        with suppress(OSError):
            self._mounts.update(kinds(procfs.read(use.pid, "mountinfo")))
        self._mounts.setdefault(use.where.mount, Kind.OTHER)

    def _secure(self, outcome: _Outcome, room: int) -> int:
        """Read what has changed, up to `room` bytes; -1: nothing. Returns how many were read."""
        use = outcome.use
        outcome.in_memory = _in_memory(outcome)
        if outcome.in_memory:
            self._mapped.add(use.key)
            return 0
        outcome.made_up = self._mounts.get(use.where.mount) is Kind.OTHER
        outcome.reason = "it is made up when it is read" if outcome.made_up else self._unwanted(outcome.uses)
        if outcome.reason is None and use.where.size > self._room:
            outcome.fails(f"all files together have more than {_ALL * self._limit} bytes")
        if outcome.reason is not None:
            return 0
        self._room -= use.where.size
        known = self._known.get(use.key)
        kind = self._mounts.get(use.where.mount)
        size = use.where.size
        if known is not None and known.reason:
            outcome.fails(known.reason)
            return 0
        if known is not None and known.signature == use.signature and not outcome.mapped and (known.settled or kind is Kind.SERVED):
            return 0
        outcome.later = True
        if kind is not Kind.LOCAL:
            return 0  # it would wait for a server that may be held
        first = 0
        if known is not None and known.steady and outcome.appended and not outcome.mapped and size >= known.copy.size:
            # One part more than needed: it shows whether the file was made anew.
            first = max(0, known.copy.size // FILE_PART - 1)
        if size - first * FILE_PART > room:
            return 0
        try:
            with opened(use) as fd:
                data = read_at_once(fd, first * FILE_PART, size)
        except OSError:
            return 0  # finish() will tell
        if first and known is not None and key_of(data[:FILE_PART]) != known.copy.keys[first]:
            return len(data)
        outcome.first, outcome.parts, outcome.later = first, data, False
        return len(data)

    def finish(self) -> tuple[dict[int, Section], dict[int, Section], dict[str, FileContent]]:
        """When they run again: the records of each process, what it has that is not saved, and the contents by sha256."""
        contents: dict[str, FileContent] = {}
        sections: dict[int, list[Content]] = {}
        unsaved: dict[int, list[Item]] = {}
        for outcome in self._outcomes_of(()):
            self._secure(outcome, -1)
        self._tables = {}
        for key in self._known.keys() - self._outcomes.keys():
            del self._known[key]
        self._busy = {key: signature for key, signature in self._busy.items() if key in self._outcomes}
        for key, outcome in self._outcomes.items():
            if outcome.reason is None and not outcome.in_memory:
                self._complete(outcome)
            if outcome.content is None:
                self._known.pop(key, None)
            else:
                self._busy.pop(key, None)
                contents[outcome.content.sha256] = outcome.content
            if outcome.made_up or (outcome.reason is not None and not outcome.written):
                continue
            for use in {use.pid: use for use in reversed(outcome.uses)}.values():
                sections.setdefault(use.pid, []).append(_record(use, outcome))
            if outcome.noteworthy:
                lost = Unsaved(f"content of {outcome.use.text}", outcome.reason or "")
                unsaved.setdefault(outcome.use.pid, []).append(lost)
        for items in sections.values():
            items.sort(key=lambda content: (content.path, content.device, content.inode))
        return _records(sections), _records(unsaved), contents

    def _complete(self, outcome: _Outcome) -> None:
        use = outcome.use
        known = self._known.get(use.key)
        if outcome.later:
            known = self._read_later(outcome)
        elif outcome.parts is not None:
            known = known or self._new(use)
            known.copy.replace(outcome.first, cut(memoryview(outcome.parts)))
            known.signature = use.signature
            known.settled = use.where.ctime < self._stopped_at - _TICK
        if outcome.reason is None and known is not None:
            outcome.content = known.copy.content(_Again(use, known.copy.keys).read)

    def _read_later(self, outcome: _Outcome) -> _Known | None:
        """Read a file when the processes run again: its content is that of the stop if nothing shows a change since."""
        use = outcome.use
        if use.where.mount not in self._mounts:
            self._learn_mounts(use)
        kind = self._kind(use)
        if kind is not Kind.LOCAL:
            outcome.made_up = kind is Kind.OTHER
            outcome.fails("it was written while it was copied")
            outcome.noteworthy &= not outcome.made_up
            return None
        if outcome.mapped:
            outcome.fails("a part of it is mapped to be written, and it is too large to be read while the process is stopped")
            return None
        before = self._known.get(use.key)
        same = before.copy.keys if before is not None and before.signature == use.signature else None
        growing = outcome.appended and (before is None or before.steady)
        if not growing and signature_now(use) != use.signature:
            self._busy[use.key] = use.signature
            outcome.fails("it was written while it was copied")
            return None
        known = self._read(use, use.where.size)
        if known.reason:
            outcome.fails(known.reason)
            return None
        settled = use.where.ctime < self._stopped_at - _TICK
        unchanged = known.signature == use.signature and (settled or known.copy.keys == same)
        if not unchanged and not (growing and known.copy.size == use.where.size):
            self._busy[use.key] = use.signature
            outcome.fails("it was written while it was copied")
        return known

    def stored(self) -> None:
        """The capture was committed."""
        for known in self._known.values():
            known.copy.stored()
        self._scratch.clear()

    def _new(self, use: Use) -> _Known:
        known = self._known[use.key] = _Known(FileCopy(self._scratch))
        return known

    def _read(self, use: Use, size: int | None = None) -> _Known:
        """Read a file as it is now: all of it, or its first bytes. What prevents it is noted as the reason."""
        known = self._known.get(use.key) or self._new(use)
        known.reason = ""
        known.signature = None
        began = time.time_ns()
        most = min(self._limit if size is None else size, self._limit)
        try:
            if self._kind(use) is Kind.SERVED:
                before, data, after = patiently(lambda: read_served(use, most))
                known.copy.replace(0, cut(memoryview(data)))
            else:
                with opened(use) as fd:
                    before = signature_of(fd)
                    known.copy.replace(0, parts_of(fd, min(most, before[0])))
                    after = signature_of(fd)
        except OSError as error:
            known.reason = f"it cannot be read: {error.strerror}"
            return known
        if before == after and known.copy.size == before[0]:
            known.signature = after
        known.settled = after[2] < began - _TICK
        return known


class _Again:
    """Reads parts again that the store had, and does not know any more."""

    def __init__(self, use: Use, keys: Sequence[bytes]) -> None:
        self._use = use
        self._keys = tuple(keys)

    def read(self, offset: int, length: int) -> bytes:
        """Raises ProcessChanged when they are other ones by now."""
        try:
            with opened(self._use) as fd:
                data = os.pread(fd, length, offset)
        except OSError:
            data = b""
        if len(data) != length or key_of(data) != self._keys[offset // FILE_PART]:
            raise ProcessChanged(self._use.pid, f"its file {self._use.text} changed while it was being captured")
        return data


def _in_memory(outcome: _Outcome) -> frozenset[int]:
    """The processes that have mapped all of the file to write to it."""
    regions: dict[int, list[Region]] = {}
    for use in outcome.uses:
        if use.region is not None:
            regions.setdefault(use.pid, []).append(use.region)
    size = outcome.use.where.size
    return frozenset(pid for pid, mapped in regions.items() if covers(sorted(mapped, key=lambda region: region.offset), size))


def _record(use: Use, outcome: _Outcome) -> Content:
    where = outcome.use.where
    return Content(
        device=where.device,
        inode=where.inode,
        path=resolve(use.text, where, f"/proc/{use.pid}/root")[0],
        size=where.size,
        mtime=where.mtime,
        mode=where.mode,
        uid=where.uid,
        gid=where.gid,
        links=where.links,
        written=outcome.written,
        in_memory=use.pid in outcome.in_memory,
        sha256=outcome.content.sha256 if outcome.content is not None else None,
        reason=outcome.reason,
    )


def _records(found: Mapping[int, Sequence[Item]]) -> dict[int, Section]:
    return {pid: tuple(item.record() for item in items) for pid, items in found.items()}
