"""What differs between two images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from vcsimg.history.changes import Change, ProcessChange, RecordChange, RegistersChange, ThreadChange
from vcsimg.history.memory import changed_pages
from vcsimg.history.records import changed_records
from vcsimg.history.regions import changed_regions
from vcsimg.image.records import Record
from vcsimg.image.snapshot import GENERAL_REGISTERS, Process, Section, Snapshot, Thread

ChangedPieces = Callable[[int], Iterable[int]]
"""For a pid, the numbers of the pieces in which own content can differ: from a store, without reading memory."""


def diff(a: Snapshot, b: Snapshot, changed_pieces: ChangedPieces | None = None) -> Iterator[Change]:
    """All differences from `a` to `b`, one at a time: the host, then by process regions, pages, threads, records.

    Without `changed_pieces`, all pieces with own content are read and compared. Processes are the same if their pids are; the
    two roots always are. Raises DamagedImage.
    """
    yield from _records(None, "host", None, a.host, b.host)
    for one, two in _pairs(a, b):
        if one is None and two is not None:
            yield ProcessChange(two.pid, "appeared", two.name)
        elif two is None and one is not None:
            yield ProcessChange(one.pid, "vanished", one.name)
        elif one is not None and two is not None:
            yield from diff_process(one, two, changed_pieces)


def diff_process(a: Process, b: Process, changed_pieces: ChangedPieces | None = None) -> Iterator[Change]:
    """All differences of one process."""
    yield from changed_regions(a, b)
    yield from changed_pages(a, b, changed_pieces(b.pid) if changed_pieces is not None and a.pid == b.pid else None)
    yield from _threads(a, b)
    for section in sorted({*a.state, *b.state}):
        yield from _records(b.pid, section, None, a.section(section), b.section(section))
    yield from _records(b.pid, "mapped", None, _mapped(a), _mapped(b))


def _pairs(a: Snapshot, b: Snapshot) -> Iterator[tuple[Process | None, Process | None]]:
    left = {process.pid: process for process in a.processes}
    right = {process.pid: process for process in b.processes}
    if a.processes and b.processes and a.processes[0].pid not in right and b.processes[0].pid not in left:
        yield left.pop(a.processes[0].pid), right.pop(b.processes[0].pid)
    for pid in left | right:
        yield left.get(pid), right.get(pid)


def _threads(a: Process, b: Process) -> Iterator[Change]:
    before: Mapping[int, Thread] = {thread.tid: thread for thread in a.threads}
    after: Mapping[int, Thread] = {thread.tid: thread for thread in b.threads}
    for tid in sorted({*before, *after}):
        if tid not in before or tid not in after:
            yield ThreadChange(b.pid, tid, "vanished" if tid in before else "appeared")
            continue
        one, two = before[tid], after[tid]
        general = {
            name: (one.registers.get(name, 0), two.registers.get(name, 0))
            for name in GENERAL_REGISTERS
            if one.registers.get(name, 0) != two.registers.get(name, 0)
        }
        if general or one.xsave != two.xsave:
            yield RegistersChange(b.pid, tid, general, one.xsave != two.xsave)
        yield from _records(b.pid, "threads", tid, one.records, two.records)


def _records(pid: int | None, section: str, tid: int | None, a: Section, b: Section) -> Iterator[RecordChange]:
    for before, after in changed_records(a, b):
        yield RecordChange(pid, section, tid, before, after)


def _mapped(process: Process) -> Section:
    return tuple(
        Record.make(
            "file", path=file.path, device=file.device, inode=file.inode, size=file.size, sha256=file.sha256, build_id=file.build_id
        )
        for file in process.mapped
    )
