"""What differs between two images of a live process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import pytest

from tests.conftest import Target
from tests.live_snapshot import snapshot_of
from vcsimg.history import Change, PageChange, ProcessChange, RecordChange, RegionChange, RegistersChange, ThreadChange, diff
from vcsimg.history.memory import changed_pages
from vcsimg.image.pages import ImageMemory, Piece, PieceSource
from vcsimg.image.records import Record
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.image.units import PIECE_SHIFT

Kind = TypeVar("Kind")


class Steps:
    """A program that does what it is told, and images of it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.area, self.counter = (int(word, 16) for word in target.line().split())

    def after(self, *words: str) -> Snapshot:
        """An image after some steps; it runs on."""
        for word in words:
            self.target.send(f"{word}\n")
            assert self.target.line() == "done"
        self.target.stop()
        snapshot = snapshot_of(self.target.pid, frozen=True)
        os.kill(self.target.pid, signal.SIGCONT)
        return snapshot


@pytest.fixture
def steps(start: Callable[..., Target]) -> Steps:
    return Steps(start("history_steps"))


def of_kind(changes: Iterable[Change], kind: type[Kind]) -> list[Kind]:
    return [change for change in changes if isinstance(change, kind)]


def test_nothing_differs_from_itself(steps: Steps) -> None:
    snapshot = steps.after()
    assert list(diff(snapshot, snapshot)) == []


def test_one_counted_up_variable_is_one_page_and_one_byte(steps: Steps) -> None:
    a = steps.after("count")
    b = steps.after("count")
    page = next(page for page in of_kind(diff(a, b), PageChange) if page.address == steps.counter & -4096)
    assert (steps.counter, steps.counter + 1) in page.runs()
    assert page.bytes_of(steps.counter, steps.counter + 1) == (b"\x65", b"\x66")
    assert page.region.perms == "rw-p"


def test_bytes_over_the_border_of_two_pages(steps: Steps) -> None:
    a = steps.after()
    b = steps.after("write")
    border = steps.area + 6 * 4096
    pages = [page for page in of_kind(diff(a, b), PageChange) if steps.area <= page.address < steps.area + (8 << 20)]
    assert [(page.address, page.changed_bytes) for page in pages] == [(border - 4096, 2), (border, 2)]
    assert [page.runs() for page in pages] == [[(border - 2, border)], [(border, border + 2)]]
    assert pages[0].bytes_of(border - 2, border) == (b"aa", b"fo")


def test_every_changed_page_is_told_and_no_other(steps: Steps) -> None:
    a = steps.after()
    b = steps.after("write", "count", "thread", "protect")
    told = {page.address: (page.before, page.after) for page in of_kind(diff(a, b), PageChange)}
    before, after = pages_of(a.processes[0]), pages_of(b.processes[0])
    both = before.keys() & after.keys()
    assert told == {address: (before[address], after[address]) for address in both if before[address] != after[address]}
    assert len(told) >= 3


def pages_of(process: Process) -> dict[int, bytes]:
    """Every readable page, by address."""
    assert isinstance(process.memory, ImageMemory)
    pages = {}
    for region in process.regions:
        buffer = bytearray(region.end - region.start)
        filled = process.memory.fill(region, region.start, memoryview(buffer))
        pages.update({region.start + at: bytes(buffer[at : at + 4096]) for at in range(0, filled, 4096)})
    return pages


def test_a_closed_page_splits_its_region(steps: Steps) -> None:
    a = steps.after()
    b = steps.after("protect")
    (change,) = of_kind(diff(a, b), RegionChange)
    assert change.kinds == ("split", "protection")
    assert len(change.before) == 1
    assert [region.perms for region in change.after] == ["rw-p", "r--p", "rw-p"]
    assert change.after[1].start == steps.area + (2 << 20)
    (back,) = of_kind(diff(b, a), RegionChange)
    assert back.kinds == ("merged", "protection")


def test_regions_appear_and_vanish(steps: Steps) -> None:
    a = steps.after()
    b = steps.after("map")
    c = steps.after("unmap")
    for changes, kind in ((diff(a, b), "appeared"), (diff(b, c), "vanished")):
        (change,) = of_kind(changes, RegionChange)
        assert change.kinds == (kind,)
        (region,) = change.before + change.after
        assert (region.end - region.start, region.perms) == (64 << 10, "rw-s")
    assert of_kind(diff(a, c), RegionChange) == []


def test_the_heap_grows(steps: Steps) -> None:
    a = steps.after("count")
    b = steps.after("grow")
    (change,) = of_kind(diff(a, b), RegionChange)
    assert change.kinds == ("grew",)
    assert change.after[0].name == "[heap]"
    assert change.after[0].end - change.before[0].end == 1 << 20


def test_a_new_thread_and_registers(steps: Steps) -> None:
    a = steps.after()
    b = steps.after("thread")
    changes = list(diff(a, b))
    (thread,) = of_kind(changes, ThreadChange)
    assert thread.kind == "appeared"
    assert thread.tid in [thread.tid for thread in b.processes[0].threads]
    c = replace(b, processes=(with_registers(b.processes[0], rip=0x1234),))
    (registers,) = of_kind(diff(b, c), RegistersChange)
    assert registers.tid == b.processes[0].threads[0].tid
    assert registers.general == {"rip": (b.processes[0].threads[0].registers["rip"], 0x1234)}
    assert not registers.vector


def with_registers(process: Process, **registers: int) -> Process:
    first, *others = process.threads
    return replace(process, threads=(replace(first, registers={**first.registers, **registers}), *others))


def test_processes_come_and_go(start: Callable[..., Target]) -> None:
    one, two = Steps(start("history_steps")), Steps(start("history_steps"))
    for steps in (one, two):
        steps.target.stop()
    both, alone = snapshot_of(one.target.pid, two.target.pid), snapshot_of(one.target.pid)
    assert of_kind(diff(alone, both), ProcessChange)[0].kind == "appeared"
    assert of_kind(diff(both, alone), ProcessChange) == [ProcessChange(two.target.pid, "vanished", both.processes[1].name)]


def test_roots_are_compared_whatever_their_pids(steps: Steps) -> None:
    a = steps.after()
    process = a.processes[0]
    b = replace(a, processes=(replace(process, pid=process.pid + 1),))
    assert list(diff(a, b)) == []


def test_records_of_sections_threads_and_the_host(steps: Steps) -> None:
    a = steps.after()
    process = a.processes[0]
    files = (Record.make("file", fd=3, offset=0), Record.make("file", fd=4, offset=0), Record.make("lock", start=1))
    moved = (Record.make("file", fd=4, offset=9), Record.make("lock", start=2), Record.make("file", fd=5, offset=0))
    thread = replace(process.threads[0], records=(Record.make("name", comm="x"),))
    one = replace(process, state={"files": files, "gone": (Record.make("a"),)})
    two = replace(process, state={"files": moved}, threads=(thread, *process.threads[1:]))
    host = (Record.make("kernel", release="7"),)
    changes = of_kind(diff(replace(a, processes=(one,), host=()), replace(a, processes=(two,), host=host)), RecordChange)
    told = [(change.section, change.tid, change.kind, line(change.before), line(change.after)) for change in changes]
    assert told == [
        ("host", None, "added", None, "kernel release=7"),
        ("threads", thread.tid, "added", None, "name comm=x"),
        ("files", None, "changed", "file fd=3 offset=0", "file fd=5 offset=0"),
        ("files", None, "changed", "file fd=4 offset=0", "file fd=4 offset=9"),
        ("files", None, "changed", "lock start=1", "lock start=2"),
        ("gone", None, "removed", "a", None),
    ]


def line(record: Record | None) -> str | None:
    return record.line() if record else None


def test_a_mapped_file_with_new_content_is_read_through(steps: Steps) -> None:
    """No page of it has own content, and all pages that read otherwise are told."""
    a = steps.after()
    process = a.processes[0]
    memory = process.memory
    assert isinstance(memory, ImageMemory)
    code = next(region for region in process.regions if "x" in region.perms and region.has_file)
    sha256 = memory.backing[code.device, code.inode]

    class Patched:
        def size(self, sha256: str) -> int | None:
            return memory.files.size(sha256.removeprefix("new"))

        def read(self, name: str, offset: int, length: int) -> bytes:
            data = bytearray(memory.files.read(name.removeprefix("new"), offset, length))
            if name.startswith("new") and offset <= code.offset + 100 < offset + len(data):
                data[code.offset + 100 - offset] ^= 0xFF
            return bytes(data)

    mapped = tuple(replace(file, sha256="new" + sha256) if file.sha256 == sha256 else file for file in process.mapped)
    backing = {key: "new" + name if name == sha256 else name for key, name in memory.backing.items()}
    newer = ImageMemory(memory.regions, memory.pieces, backing, Patched(), memory.unreadable)
    b = replace(a, processes=(replace(process, mapped=mapped, memory=newer),))
    changes = list(diff(a, b, lambda pid: []))
    assert {change.kinds for change in of_kind(changes, RegionChange)} == {("backing",)}
    places = [page.runs() for page in of_kind(changes, PageChange)]
    assert [(code.start + 100, code.start + 101)] in places


class Counted(PieceSource):
    """Pieces that count how often one is asked for."""

    def __init__(self, memory: object) -> None:
        assert isinstance(memory, ImageMemory)
        self.memory = memory
        self.read: list[int] = []

    def numbers(self) -> list[int]:
        raise AssertionError("the whole image is not to be walked")

    def piece(self, number: int) -> Piece | None:
        self.read.append(number)
        return self.memory.pieces.piece(number)


def test_only_pieces_that_can_differ_are_read(steps: Steps) -> None:
    a, b = steps.after(), steps.after("write")
    sides = []
    for snapshot in (a, b):
        process = snapshot.processes[0]
        counted = Counted(process.memory)
        memory = ImageMemory(process.regions, counted, counted.memory.backing, counted.memory.files, process.unreadable)
        sides.append((replace(process, memory=memory), counted))
    number = (steps.area + 5 * 4096) >> PIECE_SHIFT
    pages = list(changed_pages(sides[0][0], sides[1][0], [number]))
    assert {page.address for page in pages} >= {steps.area + 5 * 4096, steps.area + 6 * 4096}
    assert [set(counted.read) for _, counted in sides] == [{number}, {number}]


def test_live_memory_is_compared_without_an_image(start: Callable[..., Target]) -> None:
    target = start("history_steps")
    steps = Steps(target)
    a = steps.after()
    target.send("write\n")
    target.line()
    target.stop()
    b = snapshot_of(target.pid, image=False)
    told = {page.address for page in of_kind(diff(a, b), PageChange)}
    assert {steps.area + 5 * 4096, steps.area + 6 * 4096} <= told
