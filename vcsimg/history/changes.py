"""What can differ between two images: one class a kind of difference. `to_json` gives plain data for json.dumps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vcsimg.image.pages import Flags
from vcsimg.image.records import Record
from vcsimg.image.region import Region

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProcessChange:
    """A process that only one of the images has. `kind`: appeared or vanished."""

    pid: int
    kind: str
    name: str

    def to_json(self) -> Json:
        return {"type": "process", "pid": self.pid, "kind": self.kind, "name": self.name}


@dataclass(frozen=True, slots=True)
class RegionChange:
    """Regions of one mapping, before and after.

    `kinds`: appeared; vanished; or one or more of grew, shrank, moved (same size, other bounds), split, merged, protection,
    name, flags, backing (the file's content is another).
    """

    pid: int
    kinds: tuple[str, ...]
    before: tuple[Region, ...]
    after: tuple[Region, ...]

    def to_json(self) -> Json:
        return {
            "type": "region",
            "pid": self.pid,
            "kinds": list(self.kinds),
            "before": [_region(region) for region in self.before],
            "after": [_region(region) for region in self.after],
        }


@dataclass(frozen=True, slots=True)
class PageChange:
    """A page that both images have, with different bytes. `address` of its first byte; `region`: where it lies after the change.

    `before` and `after`: the whole page, 4096 bytes each.
    """

    pid: int
    address: int
    region: Region
    before: bytes
    after: bytes

    @property
    def changed_bytes(self) -> int:
        return int(np.count_nonzero(self._differs()))

    def runs(self, join: int = 8) -> list[tuple[int, int]]:
        """Runs [start, end) of changed addresses; runs with less than `join` equal bytes between them are one."""
        places = np.flatnonzero(self._differs())
        cuts = np.flatnonzero(np.diff(places) > join)
        starts = places[np.concatenate(([0], cuts + 1))]
        ends = places[np.concatenate((cuts, [len(places) - 1]))]
        return [(self.address + int(start), self.address + int(end) + 1) for start, end in zip(starts, ends, strict=True)]

    def bytes_of(self, start: int, end: int) -> tuple[bytes, bytes]:
        """Bytes before and after of a run of addresses within the page."""
        part = slice(start - self.address, end - self.address)
        return self.before[part], self.after[part]

    def to_json(self) -> Json:
        runs = []
        for start, end in self.runs():
            before, after = self.bytes_of(start, end)
            runs.append({"address": start, "before": before.hex(), "after": after.hex()})
        return {
            "type": "page",
            "pid": self.pid,
            "address": self.address,
            "region": self.region.name,
            "changed_bytes": self.changed_bytes,
            "runs": runs,
        }

    def _differs(self) -> Flags:
        return np.not_equal(np.frombuffer(self.before, np.uint8), np.frombuffer(self.after, np.uint8))


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """A thread that only one of the images has. `kind`: appeared or vanished."""

    pid: int
    tid: int
    kind: str

    def to_json(self) -> Json:
        return {"type": "thread", "pid": self.pid, "tid": self.tid, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class RegistersChange:
    """General registers of a thread: name to (before, after). `vector`: FPU or vector registers differ."""

    pid: int
    tid: int
    general: Mapping[str, tuple[int, int]]
    vector: bool

    def to_json(self) -> Json:
        general = {name: list(values) for name, values in self.general.items()}
        return {"type": "registers", "pid": self.pid, "tid": self.tid, "general": general, "vector": self.vector}


@dataclass(frozen=True, slots=True)
class RecordChange:
    """A record of a section: added (`before` is None), removed (`after` is None) or changed.

    `pid` is None in section `host`; `tid` is set for a record of a thread, whose section is `threads`.
    """

    pid: int | None
    section: str
    tid: int | None
    before: Record | None
    after: Record | None

    @property
    def kind(self) -> str:
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    def to_json(self) -> Json:
        return {
            "type": "record",
            "pid": self.pid,
            "section": self.section,
            "tid": self.tid,
            "kind": self.kind,
            "before": self.before.line() if self.before else None,
            "after": self.after.line() if self.after else None,
        }


Change = ProcessChange | RegionChange | PageChange | ThreadChange | RegistersChange | RecordChange


def _region(region: Region) -> Json:
    return {
        "start": region.start,
        "end": region.end,
        "perms": region.perms,
        "offset": region.offset,
        "device": region.device,
        "inode": region.inode,
        "name": region.name,
    }
