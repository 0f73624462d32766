"""One process across its captures: what is known of it, what is tracked, and how one capture of it goes.

draft()     while it runs, before the first prepare(): all of a large process, for the store to keep; a capture is then what is written since
prepare()   while it runs: map, mapped files, write-protection, copy what was written so far
secure_…()  while it is stopped: registers and the other facts; what was written since, shared memory
finish()    while it runs again: compare, describe; its memory comes as changes, read by the store
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcsimg.capture.behind import WriteBehind
from vcsimg.capture.content import OwnPages, shared_data
from vcsimg.capture.early import EarlyLook
from vcsimg.capture.files import FileTable
from vcsimg.capture.harvest import Harvest
from vcsimg.capture.map_reader import MapReader
from vcsimg.capture.pages import (
    NO_RANGES,
    OwnFilePages,
    PageNumbers,
    Ranges,
    clusters,
    inside,
    intersect,
    join,
    page_numbers,
    populated,
    ranges_of,
    ranges_of_pages,
    size_of,
    subtract,
)
from vcsimg.capture.protection import WriteProtection
from vcsimg.capture.regions import Kind
from vcsimg.capture.shadow import Shadow
from vcsimg.capture.state import StateReader
from vcsimg.capture.state.descriptors import Descriptor
from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.image.pages import Flags, PieceChange
from vcsimg.image.records import Record
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import FileContent, Process
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import features, procfs
from vcsimg.memory import AutoMemory, ProcMemory, Room
from vcsimg.process import FrozenChild, HeldProcess, fork_frozen, open_userfaultfd

ENGINES = ("auto", "wp", "cow", "compare")

_PRECOPY_LEAST, _PRECOPY_MOST, _PRECOPY_SHARE = 64 << 20, 1 << 30, 8
"""Bytes that are copied onto the heap while the process runs: the least limit, the largest, and what part of the memory that is available may be
taken in between. More, and what a first capture reads, is left to the frozen child, whose making stops the process for longer."""

_DRAFT_LEAST = _PRECOPY_LEAST
"""Bytes of a process from which on its first capture is drafted."""

_FEW = 1 << 20
"""So many bytes written while others were copied are left to be copied in the stop."""

_ROUND_LEAST = 8 << 20
"""Bytes that a round must have copied for another to follow: what was written meanwhile costs the stop less than the process would be disturbed, whose
pages are protected once more."""

_MUCH = 128 << 20
"""Bytes that are tracked from which on the scan in the stop takes longer than telling somebody else to make it."""

_COPY_SPEED = 2.7e9
_STOP_SECONDS = 1e-3
_STOP_SECONDS_PER_THREAD = 4e-5
_FORK_SECONDS = 2e-3
_FORK_SECONDS_PER_BYTE = 45e-3 / (1 << 30)
"""Of a pause: docs/performance.md, "Copy or fork?"."""

_EVERYWHERE = ranges_of([(0, 1 << 63)])


class _Beside(NamedTuple):
    """What must be read besides what was written: pages of file regions that were dropped; of anonymous memory that is not tracked, in
    `spans`, what is populated; own pages of file regions that are not tracked."""

    dropped: Ranges
    untracked: Ranges
    spans: list[list[int]]
    own: Ranges


class Drafted(NamedTuple):
    """Memory of a process that runs: its map, and what is populated, `size` bytes, as changes from nothing, each piece as it is when it is read."""

    pid: int
    regions: RegionMap
    changes: Iterator[PieceChange]
    size: int


class ProcessCapture:
    """`complete` of the shadow: see Harvest. `base`: pieces of the image that this capture will be relative to. `leaving`: see
    SocketProbe."""

    def __init__(
        self, pid: int, files: FileTable, scratch: Path, exclude: Sequence[str], room: Room, *, leaving: bool = False
    ) -> None:
        self.pid = pid
        self.start_ticks = procfs.stat(pid).starttime
        self._tid = procfs.speaker(pid)  # a thread that has its memory and files
        self._files = files
        self._scratch = scratch
        self._room = room
        self._state = StateReader(pid, leaving=leaving)
        self._shadow = Shadow(scratch, room)
        self._complete = False
        self._base: Sequence[int] = ()
        self._map = MapReader(files, exclude)
        self._own_before: PageNumbers | None = None  # own pages of file regions in the shadow; None: to be looked up
        self._own_files = OwnFilePages(NO_RANGES)
        self._constant: list[tuple[int, int]] | None = None
        self._foreseen: tuple[Ranges, _Beside] | None = None
        self._tracker: WriteProtection | None = None
        self._early: EarlyLook | None = None
        self._address_space = b""
        self._harvest = Harvest(self._shadow, complete=False)
        self._dirty = NO_RANGES
        self._tracked = NO_RANGES  # at the last look: what written() spoke of
        self._steady = NO_RANGES  # since the capture before: what was not written there has not changed
        self._child: FrozenChild | None = None
        self._child_memory: AutoMemory | None = None
        self._unregistered = NO_RANGES
        self._freshly_armed = False
        self._precopied = False
        self._meanwhile = 0  # bytes that were written while others were copied, at the last look
        self._bytes_drafted = 0
        self._watched = False  # not to be tracked: it cannot be borrowed from, or uses userfaultfd itself
        self.engine = ""
        self.monotonic = 0

    @property
    def bytes_read(self) -> int:
        return self._harvest.bytes_read + self._bytes_drafted

    @property
    def descriptors(self) -> Iterable[Descriptor]:
        """Those that it had when it was last stopped."""
        return self._state.descriptors

    @property
    def pieces(self) -> tuple[int, ...]:
        """Those that it may have in the capture that the next one is relative to."""
        return (*self._shadow.numbers(), *self._base)

    @property
    def written_files(self) -> list[Region]:
        """Regions through which it writes to files, and which are captured whole."""
        return [region for region in self._map.plan.of(Kind.SHARED) if region.writes_file and not region.deleted]

    @property
    def parent(self) -> int:
        """Its parent when it was last stopped."""
        return self._state.parent

    def close(self) -> None:
        """Stop tracking; the process keeps nothing of us."""
        self._end_tracking()
        self._shadow.close()

    def restart(self, base: Sequence[int], *, blank: bool) -> None:
        """Forget what was known of the image before: the next capture is relative to one with the pieces `base` (blank: to none)."""
        self._shadow.close()
        self._shadow = Shadow(self._scratch, self._room)
        self._complete = blank
        self._base = base

    def recall(self, process: Process) -> None:
        """Take over what a capture that another session made knew of the process besides memory."""
        self._state.recall(process)

    def stored(self) -> None:
        """The last capture was committed: the shadow is what the next one is relative to."""
        self._complete = True
        self._base = ()
        self._bytes_drafted = 0

    def wants_tracking(self, engine: str) -> bool:
        """While it runs: whether begin_tracking() should be called first. Raises ProcessChanged when it ended, or when the pid is
        another process's now."""
        self._tid = procfs.speaker(self.pid)
        if procfs.stat(self.pid).starttime != self.start_ticks:
            raise ProcessChanged(self.pid, "it has ended, and its pid is another process's now")
        if engine not in ("auto", "wp") or self._watched:
            self._end_tracking()
            return False
        if procfs.auxv(self._tid) != self._address_space or (self._tracker is not None and self._tracker.is_over):
            self._end_tracking()  # it called exec: the old address space is gone, and our userfaultfd with it
        if self._tracker is not None or not (features.available("uffd_wp_async") and features.available("pagemap_scan")):
            return False
        if _uses_userfaultfd(self._tid):
            self._watched = True
            return False
        self._look()
        return True

    @contextmanager
    def draft(self) -> Iterator[Drafted | None]:
        """While it runs, before its first prepare(): memory that is tracked from now on, read as the changes are consumed, to their
        end. The next capture is relative to that. None if there is so little that it can be copied when it is needed, or if it is not
        tracked. Raises OSError; the changes DiskFull, where the shadow finds no room."""
        if self._tracker is None or not self._complete or not self._shadow.is_empty or self._populated() < _DRAFT_LEAST:
            yield None
            return
        self._look()
        with _opened(self._tid, "pagemap") as pagemap_fd, AutoMemory(self._tid) as memory:
            self._collect(pagemap_fd)
            fresh = join([self._tracker.arm(pagemap_fd, self._map.eligible[file], file=file) for file in (False, True)])
            yield Drafted(self.pid, self._map.plan.regions, self._drafted(memory, fresh), size_of(fresh))

    def _drafted(self, memory: AutoMemory, ranges: Ranges) -> Iterator[PieceChange]:
        with WriteBehind(self._shadow) as behind:
            harvest = Harvest(self._shadow, complete=True, behind=behind)
            harvest.read_later(memory, ranges)
            with suppress(ProcessChanged):  # whoever stops it will tell
                yield from harvest.changes(OwnPages(self._map.plan, self._contents()), NO_RANGES, self._everything())
        self._bytes_drafted = harvest.bytes_read

    def prepare(self, stop: Callable[[], AbstractContextManager[HeldProcess]] | None = None) -> None:
        """While it runs. `stop`, if that may be, stops it."""
        self._state.prepare()
        self._look()
        self._harvest = Harvest(self._shadow, complete=self._complete)
        self._dirty = NO_RANGES
        self._precopied = False
        self._meanwhile = 0
        self.copied = 0
        if self._tracker is not None:
            with _opened(self._tid, "pagemap") as pagemap_fd, AutoMemory(self._tid) as memory:
                self._precopy(self._tracker, pagemap_fd, memory, stop)
                self._own_files.look(pagemap_fd)
        self._own_before = self._shadow.own_pages(self._map.eligible[True])
        self._constant = self._unchanging()
        self._foreseen = self._tracked, self._beside()
        if self._tracker is not None and size_of(self._tracked) >= _MUCH and EarlyLook.possible():
            with suppress(OSError):  # no more threads or descriptors
                self._early = EarlyLook(self._tracker, self._map.all_eligible)
        if not self._is_busy:
            self._state.rehearse()

    @property
    def is_quiet(self) -> bool:
        """Whether hardly anything was written while prepare() copied: then a moment more or less until it is stopped makes no difference."""
        return self._tracker is not None and not self._is_busy

    @property
    def _is_busy(self) -> bool:
        """Whether much was written while prepare() copied: then each moment until it is stopped makes the stop longer."""
        return len(self._dirty) > 0 or self._meanwhile > _FEW

    def _precopy(
        self,
        tracker: WriteProtection,
        pagemap_fd: int,
        memory: AutoMemory,
        stop: Callable[[], AbstractContextManager[HeldProcess]] | None,
    ) -> None:
        """Copy what was written; then what was written meanwhile, as long as that becomes less, as a virtual machine is moved."""
        self._freshly_armed = False
        left = _PRECOPY_LEAST
        size = 1 << 63
        while True:
            before = self._tracked
            written = self._collect(pagemap_fd)
            if not self._precopied:  # all that was written since the last capture
                tracker.hot.observe(intersect(written, self._map.eligible[False]))
            if stop is not None and self._is_worth_a_stop(size_of(populated(pagemap_fd, self._unregistered, file=False))):
                with stop() as held:
                    self._register(tracker, held)
                self._look()
            stop = None
            fresh = [tracker.arm(pagemap_fd, self._map.eligible[file], file=file) for file in (False, True)]
            self._freshly_armed |= any(map(len, fresh)) or (self._precopied and before is not self._tracked)
            self._dirty = join([written, *fresh])
            last, size = size, size_of(self._dirty)
            self._meanwhile = size if self._precopied else 0
            if size > left and not self._precopied and not self._shadow.is_empty:
                left = max(left, min(_PRECOPY_MOST, procfs.available_memory() // _PRECOPY_SHARE))
            if size > min(left, last // 2):
                break
            self._harvest.secure(memory, page_numbers(self._dirty))
            left -= size
            self.copied += size
            self._dirty = NO_RANGES
            self._precopied = True
            if size <= _ROUND_LEAST:
                break

    def _is_worth_a_stop(self, size: int) -> bool:
        """Whether to copy `size` bytes of new regions when it is stopped, as they are not tracked, would take longer than stopping it once more before, so that
        they are."""
        return size / _COPY_SPEED > _STOP_SECONDS + _STOP_SECONDS_PER_THREAD * procfs.stat(self._tid).num_threads

    def begin_tracking(self, held: HeldProcess) -> None:
        """While it is stopped: borrow a thread for one userfaultfd(2), so that prepare() can write-protect. Where it cannot be borrowed, the
        process is not tracked."""
        try:
            with self._state.passing(held):
                uffd = open_userfaultfd(held)
        except BorrowError:
            self._watched = True
            return
        self._tracker = WriteProtection(uffd)
        self._address_space = procfs.auxv(self._tid)
        self._unregistered = self._map.all_eligible
        self._register(self._tracker, held)

    def _register(self, tracker: WriteProtection, held: HeldProcess) -> None:
        """While it is stopped: make known to the tracker what was not at the last look, if the map is as it was then."""
        if self._map.is_current(held.threads[0].tid):
            tracker.register(self._unregistered, self._map.plan.regions)

    def secure_facts(self, held: HeldProcess) -> None:
        """While it is stopped: everything but memory."""
        self._tid = held.threads[0].tid
        # Before memory, as long as the processor has at hand what prepare() used last: the scan goes through megabytes of page tables.
        early = self._early
        self._state.read_held(held, (lambda: early.begin(held.pagemap)) if early is not None else None)
        self._look_again()
        self._map.hold_deleted_files(self._tid)

    def secure_memory(self, held: HeldProcess, engine: str) -> None:
        """While it is stopped, after secure_facts(): what of its memory would be lost when it runs on."""
        before = self._tracked
        written = self._collect_stopped(held.pagemap) if self._tracker is not None else NO_RANGES
        if (
            self._tracker is not None
            and len(self._unregistered)
            and self._tracker.register(self._unregistered, self._map.plan.regions)
        ):
            self._look_again()  # new regions have become one with their neighbours
        self._steady = before if before is self._tracked else intersect(before, self._tracked)
        if self._precopied and (self._freshly_armed or not np.array_equal(before, self._tracked)):
            # What was armed after the look in prepare() may be gone again without `before` knowing it.
            self._harvest.keep_only(self._tracked)
            self._foreseen = None
        foreseen = self._foreseen
        if self._own_files.look(held.pagemap) or foreseen is None or foreseen[0] is not self._tracked:
            foreseen = self._tracked, self._beside()
        beside = foreseen[1]
        dirty = join([written, beside.dropped, self._refilled(), intersect(self._dirty, self._tracked)])
        rest = {False: populated(held.pagemap, beside.untracked, file=False, spans=beside.spans), True: beside.own}
        size = size_of(dirty) + size_of(rest[False]) + size_of(rest[True])
        self._child = self._freeze(held, engine, size)
        shared = self._shared()
        size += size_of(shared)
        with _memory(held, size) as memory:
            if self._child is not None:
                left = self._left_out(held, self._child)
                self._child_memory = AutoMemory(self._child)
                self._harvest.read_later(self._child_memory, subtract(join([dirty, *rest.values()]), left))
                shared = join([shared, intersect(join([dirty, *rest.values()]), left)])
            else:
                self._harvest.secure(memory, page_numbers(dirty))
                for file, ranges in rest.items():
                    self._harvest.secure_all(memory, ranges, file=file)
            self._harvest.secure_all(memory, shared)
        tracked = "wp" if self._tracker is not None and len(before) else ""
        copied = "cow" if self._child is not None else ""
        self.engine = "+".join(part for part in (tracked, copied) if part) or "compare"

    def finish(self, parent: int) -> tuple[Process, dict[str, FileContent]]:
        """While it runs again. The changes of the process that is returned must be read before release()."""
        if self._tracker is not None:
            self._tracker.leave_hot(self._map.eligible[False])
        facts = self._state.finish()
        self.monotonic = facts.monotonic
        self._map.complete_flags(self._tid)
        # A process that uses userfaultfd itself would find its own registrations refused (EBUSY) because of ours.
        self._watched = self._watched or any(record.get("type") == "userfaultfd" for record in facts.state.get("files", ()))
        mapped = tuple({(file.device, file.inode): file for file in self._map.mapped.values()}.values())
        contents = self._contents()
        vanished = subtract(_EVERYWHERE, self._steady)
        process = Process(
            pid=self.pid,
            parent=parent,
            name=facts.name,
            regions=self._map.plan.regions,
            threads=facts.threads,
            mapped=mapped,
            state={**facts.state, "unsaved": (*facts.unsaved, *self._unsaved())},
            unreadable=frozenset(self._map.plan.reasons),
            changes=self._harvest.changes(OwnPages(self._map.plan, contents), vanished, self._everything(), self._base),
        )
        return process, {**facts.contents, **{content.sha256: content for content in contents.values()}}

    def _contents(self) -> dict[int, FileContent]:
        """Contents of mapped files by the starts of their regions."""
        return {start: content for start, file in self._map.mapped.items() if (content := self._files.content(file)) is not None}

    def _everything(self) -> Ranges:
        """All regions of the user's half."""
        return join([ranges_of((region.start, region.end) for region in self._map.plan.regions if region.end < 1 << 63)])

    def settle(self) -> None:
        """After the changes were stored, before release(): make ready what a next capture is compared with. Raises OSError, DiskFull."""
        self._harvest.settle()

    def release(self) -> None:
        """End the frozen child, if there is one, and the early look."""
        early, self._early = self._early, None
        if early is not None:
            early.close()
        memory, self._child_memory = self._child_memory, None
        if memory is not None:
            memory.close()
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _look(self) -> None:
        """While it runs: take over its map, if that has changed."""
        if self._map.look(self._tid):
            self._forget_what_follows_from_the_map()

    def _look_again(self) -> None:
        """The same while it is stopped."""
        if self._map.look_again(self._tid):
            self._forget_what_follows_from_the_map()

    def _forget_what_follows_from_the_map(self) -> None:
        self._own_before = None
        self._own_files = OwnFilePages(self._map.eligible[True])
        self._constant = None
        self._foreseen = None
        if self._tracker is not None:
            self._tracker.forget(self._map.rewritten)

    def _collect(self, pagemap_fd: int) -> Ranges:
        assert self._tracker is not None
        self._tracked, written, self._unregistered = self._tracker.written(pagemap_fd, self._map.all_eligible)
        return written

    def _collect_stopped(self, pagemap_fd: int) -> Ranges:
        if self._early is None:
            return self._collect(pagemap_fd)
        self._tracked, written, self._unregistered = self._early.take(pagemap_fd)
        if self._early.eligible is self._map.all_eligible:
            return written
        # The map has changed since.
        written = join([written, self._collect(pagemap_fd)])
        return intersect(written, self._tracked)

    def _beside(self) -> _Beside:
        """From what own pages of file regions there are, and what is tracked, as last looked up."""
        untracked = subtract(self._map.eligible[False], self._tracked)
        return _Beside(
            self._dropped(self._own_files.present),
            untracked,
            clusters(untracked).tolist(),
            subtract(self._own_files.own, self._tracked),
        )

    def _dropped(self, present: Ranges) -> Ranges:
        """Tracked pages of file regions that had own content, at the last capture or when copied just now, and may have none now.

        MADV_DONTNEED leaves the mark of protection behind in file regions (mm/memory.c, zap_install_uffd_wp_if_needed), so the scan
        does not report them; and that mark looks like a page that is swapped out. All that are not in memory as own pages are read
        again. `present`: own pages of file regions that are in memory.
        """
        ranges = intersect(self._map.eligible[True], self._tracked)
        before = self._shadow.own_pages(self._map.eligible[True]) if self._own_before is None else self._own_before
        own = np.concatenate((before, self._harvest.secured(ranges)))
        return ranges_of_pages(np.unique(own[inside(own, ranges) & ~inside(own, present)]))

    def _refilled(self) -> Ranges:
        """While it is stopped: tracked pages of file regions that are its own, and may be what the file has all the same.

        To one that was dropped, the first write makes two faults. The first gives it a copy of the file's page, with the mark of protection that was
        left behind (mm/memory.c, set_pte_range), the second takes that away. A thread that is stopped between them is outside of system calls.
        """
        return intersect(self._own_files.present, self._tracked) if self._state.computes else NO_RANGES

    def _end_tracking(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
        self._tracked = NO_RANGES

    def _freeze(self, held: HeldProcess, engine: str, size: int) -> FrozenChild | None:
        """A frozen child, if copying `size` bytes now would take longer than forking."""
        if engine == "compare":
            return None
        seconds = size / _COPY_SPEED
        if engine != "cow" and seconds < _FORK_SECONDS + self._populated() * _FORK_SECONDS_PER_BYTE:
            return None
        if held.can_borrow is not None:
            return None
        try:
            return fork_frozen(held)
        except BorrowError:
            return None

    def _populated(self) -> int:
        """Bytes of memory, by the kernel's account: what a fork has to copy page tables for."""
        return int(procfs.read(self._tid, "statm").split()[1]) * PAGE_SIZE

    def _left_out(self, held: HeldProcess, child: FrozenChild) -> Ranges:
        """Private regions whose content the child does not have: MADV_DONTFORK, MADV_WIPEONFORK, or made read-only to it."""
        kept = {(region.start, region.end) for region in procfs.read_maps(child.pid)}
        regions = [
            (region.start, region.end)
            for region in self._map.plan.of(Kind.ANONYMOUS, Kind.FILE)
            if (region.start, region.end) not in kept or "wf" in region.flags or self._map.is_new(region)
        ]
        return join([ranges_of(regions), self._wiped(held, child)])

    def _wiped(self, held: HeldProcess, child: FrozenChild) -> Ranges:
        """Regions that are empty in the child alone. MADV_WIPEONFORK of a whole region changes nothing in the map, so its flags may be those
        from before."""
        pairs = [(region.start, region.end) for region in self._map.plan.of(Kind.ANONYMOUS)]
        regions = ranges_of(pairs)
        # Marks of protection look as if swapped out, and are not inherited.
        swapped = procfs.status(held.threads[0].tid).get("VmSwap", "0 kB") != "0 kB"
        mine = populated(held.pagemap, regions, file=False, swapped=swapped)
        return regions[_reached(regions, mine) & ~_reached(regions, populated(child.pagemap, regions, file=False))]

    def _shared(self) -> Ranges:
        """Everything that is read at each capture, as nothing tells whether it changed. The vdso never does."""
        constant = self._unchanging() if self._constant is None else self._constant
        if constant:
            self._steady = join([self._steady, ranges_of(constant)])
        regions = self._map.plan.of(Kind.SHARED)
        return join([shared_data(self._tid, region) for region in regions if (region.start, region.end) not in constant])

    def _unchanging(self) -> list[tuple[int, int]]:
        """Shared regions that need not be read again."""
        regions = self._map.plan.of(Kind.SHARED)
        constant = [(region.start, region.end) for region in regions if region.name == "[vdso]" and self._complete]
        return [pair for pair in constant if len(self._shadow.own_pages(ranges_of([pair])))]

    def _unsaved(self) -> list[Record]:
        """Regions without content, but for those that every process gets from the kernel; and files that have changed since the map was looked at."""
        return [
            Record.make("unsaved", resource=f"region {region.start:x}-{region.end:x} {region.name}".rstrip(), reason=reason)
            for region in self._map.plan.regions
            if not region.special and (reason := self._map.plan.reasons.get(region.start))
        ] + [
            Record.make("unsaved", resource=f"mapped file {file.path}", reason="it was written while it was captured")
            for file in self._map.stale_files(self._tid)
        ]


def _uses_userfaultfd(pid: int) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[userfaultfd]":
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _memory(held: HeldProcess, size: int) -> AutoMemory | ProcMemory:
    """The way to read so many bytes in all. For few, the one that is made ready the quickest."""
    return AutoMemory(held) if size > _FEW else ProcMemory(held.pid, held.memory)


def _reached(regions: Ranges, ranges: Ranges) -> Flags:
    """Which of some regions have an address in one of the ranges, (n,)."""
    first = np.searchsorted(ranges[:, 1], regions[:, 0], side="right")
    return np.asarray(first < np.searchsorted(ranges[:, 0], regions[:, 1], side="left"))


@contextmanager
def _opened(pid: int, name: str) -> Iterator[int]:
    """/proc/PID/NAME, opened for reading."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
