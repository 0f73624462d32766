"""Captures of one process, or of a process and all its descendants, each relative to the one before."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vcsimg.capture.farewell import Farewell
from vcsimg.capture.files import FileTable
from vcsimg.capture.open_files import LIMIT, OpenFiles
from vcsimg.capture.rehearsal import Rehearsal
from vcsimg.capture.state import TreeState, host_records
from vcsimg.capture.target import ENGINES, Drafted, ProcessCapture
from vcsimg.errors import ProcessError, VcsimgError
from vcsimg.image.pages import ImageMemory, PieceChange
from vcsimg.image.snapshot import CaptureFacts, FileContent, Process, Snapshot
from vcsimg.kernel import procfs
from vcsimg.memory import Room
from vcsimg.process import Crowd, HeldProcess, find_code_early, hold, hold_tree

_MUCH = 1 << 20
"""Bytes: copying so many pushes out of the caches what the stop needs."""
_MANY = 64 << 20
"""Bytes: where so many were copied, the sooner the capture is stored the better, whoever waits."""


@dataclass(frozen=True)
class Options:
    """What the user may choose. `exclude`: shell patterns for names of regions that are not captured. `files`: keep the contents
    of files. `file_content`: bytes up to which the content of a file that is open for writing is kept. `scratch`: a folder for a
    file of the size of the process that has no name. `kill`: end what was captured when it is stored, without that it runs again (see
    farewell.py). `once`: nothing is made ready for a second capture."""

    scratch: Path
    engine: str = "auto"
    tree: bool = False
    files: bool = True
    file_content: int = LIMIT
    exclude: Sequence[str] = ()
    timeout: float = 5.0
    kill: bool = False
    once: bool = False


class Session:
    """Follows a process from capture to capture.

        session = Session(pid, options, repository.load)
        with session.capture() as snapshot:
            session.stored(repository.commit(snapshot, …))

    A capture that is left without stored() counts as lost: the next one is relative to the last that was stored.
    `load` reads a stored capture; `base` is the commit that the first capture shall be relative to.
    """

    def __init__(self, pid: int, options: Options, load: Callable[[str], Snapshot], base: str | None = None) -> None:
        if options.engine not in ENGINES:
            raise VcsimgError(f"no such engine: {options.engine!r}", remedy=f"There are {', '.join(ENGINES)}.")
        self.pid = pid
        self.options = options
        self.base = base
        self._load = load
        self._drafted = False  # the shadows hold what draft() gave
        self._paused = 0.0  # seconds in which processes were stopped to make the next capture ready
        self._in_step = False  # the shadows hold exactly what `base` holds
        self._captures: dict[int, ProcessCapture] = {}
        self._bases: dict[int, Process] = {}
        self._left: dict[int, Sequence[int]] = {}
        """Pieces of processes that were given up, by pid. If another process has that pid now, it is stored as a change of these."""
        self._files = FileTable()
        self._rehearsal = Rehearsal()
        self._room = Room()
        self._open_files = OpenFiles(options.scratch, options.file_content if options.files else 0)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stored(self, commit: str) -> None:
        """The capture was committed: what comes next is relative to it."""
        self.base = commit
        self._in_step = True
        for capture in self._captures.values():
            capture.stored()
        self._open_files.stored()

    def close(self) -> None:
        """Stop following: the processes keep nothing of us."""
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()
        self._open_files.close()
        self._rehearsal.close()

    def draft(self) -> Generator[Drafted, None, None]:
        """Before a first capture: what can be read of large processes while they run, each to be stored before the next is asked for. When
        all are, the capture has only what has changed since; to leave it before, because it cannot be stored, makes the capture a whole
        one. Nothing when there is something that the capture is relative to. Raises what capture() does."""
        if self.base is not None:
            return
        self._fall_back()
        for pid in self._pids():
            with self._excused(pid), self._track(pid).draft() as found:
                if found is not None:
                    yield found
        self._drafted = True

    @contextmanager
    def capture(self) -> Iterator[Snapshot]:
        """One capture. The processes are stopped only for a part of the entry of this block; their memory is read while the block
        runs, as the changes of the snapshot are consumed. Raises ProcessError, and OSError of /proc when a process ends meanwhile."""
        began = time.time()
        if not self._in_step and not self._drafted:
            self._fall_back()
        self._in_step = self._drafted = False
        farewell: Farewell | None = None
        endings = ExitStack()
        try:
            first = self._rehearsal.prepare()
            if first:
                self._rehearsal.play()
            pids = self._pids()
            crowd = endings.enter_context(Crowd(pids))
            self._prepare(pids)
            crowded = crowd.waiting() is not None and self._copied() <= _MANY
            pause, self._paused = self._paused, 0.0
            tree = TreeState()
            holds = ExitStack()
            if first or self._is_rehearsal_worth_it():
                self._rehearsal.play()
            with holds, _no_collection():
                helds = holds.enter_context(self._held())
                if self.options.kill:
                    farewell = endings.enter_context(closing(Farewell(helds)))
                for held in helds:
                    if held.pid not in self._captures:
                        self._add(held.pid, None).prepare()
                    self._captures[held.pid].secure_facts(held)
                tree.read_held(helds)
                for held in helds:
                    self._captures[held.pid].secure_memory(held, self.options.engine)
                self._secure_open_files([held.pid for held in helds])
                if farewell is not None:
                    kept = endings.enter_context(holds.pop_all())  # they stay held
            pause += max(held.pause or time.monotonic() - held.stopped_at for held in helds)
            parents = {held.pid: self._captures[held.pid].parent for held in helds}
            for pid in self._captures.keys() - parents.keys():
                self._captures.pop(pid).close()
            self._left.clear()
            snapshot = replace(self._snapshot(parents, tree, began, pause, crowd.join), crowded=crowded)
            yield snapshot
            if farewell is not None and self._in_step:
                farewell.end()
                kept.close()
                farewell.await_end()
            self._settle()
        finally:
            endings.close()
            for capture in self._captures.values():
                capture.release()
            self._files.release()
            self._room.turn()

    def _is_rehearsal_worth_it(self) -> bool:
        """The caches are full of what was copied, and what it takes is not paid for with what is written meanwhile."""
        return self._copied() > _MUCH and all(capture.is_quiet for capture in self._captures.values())

    def _copied(self) -> int:
        """Bytes that were copied while the processes ran."""
        return sum(capture.copied for capture in self._captures.values())

    def _settle(self) -> None:
        """The capture is stored whatever happens here; if this fails, the next one is compared with what is stored."""
        if not self._in_step:
            return
        self._in_step = False
        if not self.options.once:
            with suppress(OSError, VcsimgError):
                for capture in self._captures.values():
                    capture.settle()
                self._in_step = True

    def _fall_back(self) -> None:
        """Begin again from the last stored capture: what the shadows hold is not what it holds."""
        self.close()
        self._left.clear()
        if self.base is not None:
            for process in self._load(self.base).processes:
                self._bases[process.pid] = process

    def _add(self, pid: int, base: Process | None) -> ProcessCapture:
        capture = ProcessCapture(
            pid, self._files, self.options.scratch, self.options.exclude, self._room, leaving=self.options.kill
        )
        pieces = tuple(base.memory.pieces.numbers()) if base is not None and isinstance(base.memory, ImageMemory) else ()
        left = self._left.pop(pid, None)
        capture.restart(pieces if left is None else left, blank=base is None and left is None)
        if base is not None:
            capture.recall(base)
        self._captures[pid] = capture
        return capture

    def _prepare(self, pids: Sequence[int]) -> None:
        """Everything that can be done while the processes run."""
        self._open_files.prepare(pids)
        for pid in pids:
            with self._excused(pid):
                self._track(pid).prepare(partial(self._stopped, pid))

    def _pids(self) -> list[int]:
        return [self.pid, *(procfs.descendants(self.pid) if self.options.tree else ())]

    def _track(self, pid: int) -> ProcessCapture:
        """A process; what it writes from now on is noted, if that can be."""
        capture = self._captures.get(pid) or self._add(pid, self._bases.pop(pid, None))
        find_code_early(pid)
        if capture.wants_tracking(self.options.engine):
            with self._stopped(pid) as held:
                capture.begin_tracking(held)
        return capture

    @contextmanager
    def _stopped(self, pid: int) -> Iterator[HeldProcess]:
        """Stop a process for a moment."""
        with _no_collection(), hold(pid, timeout=self.options.timeout) as held:
            yield held
        self._paused += held.pause

    @contextmanager
    def _excused(self, pid: int) -> Iterator[None]:
        """A process below the first one may be a zombie, or end meanwhile; hold_tree() will tell."""
        try:
            yield
        except (ProcessError, FileNotFoundError, ProcessLookupError, PermissionError):
            if pid == self.pid:
                raise
            left = self._captures.pop(pid, None)
            if left is not None:
                self._left[pid] = left.pieces
                left.close()

    def _secure_open_files(self, pids: Iterable[int]) -> None:
        captures = {pid: self._captures[pid] for pid in pids}
        self._open_files.secure(
            {pid: capture.descriptors for pid, capture in captures.items()},
            {pid: capture.written_files for pid, capture in captures.items()},
        )

    @contextmanager
    def _held(self) -> Iterator[list[HeldProcess]]:
        if self.options.tree:
            with hold_tree(self.pid, timeout=self.options.timeout) as helds:
                yield helds
        else:
            with hold(self.pid, timeout=self.options.timeout) as held:
                yield [held]

    def _snapshot(
        self, parents: Mapping[int, int], tree: TreeState, began: float, pause: float, finish: Callable[[], None]
    ) -> Snapshot:
        """`finish` is called when the changes of all processes have been read."""
        facts = CaptureFacts(
            engine="",
            time=began,
            pause=pause,
            start_ticks=self._captures[self.pid].start_ticks,
            boot_id=procfs.boot_id(),
            host=platform.node(),
            kernel=platform.release(),
        )
        processes = []
        left = set(parents)
        files: dict[str, FileContent] = {}
        kept, unsaved, open_files = self._open_files.finish()

        def read(pid: int) -> None:
            left.discard(pid)
            if not left:
                finish()

        for pid, parent in parents.items():
            capture = self._captures[pid]
            process, contents = capture.finish(parent)
            assert process.changes is not None
            state = {
                **process.state,
                "contents": kept.get(pid, ()),
                "unsaved": (*process.section("unsaved"), *unsaved.get(pid, ())),
            }
            processes.append(replace(process, changes=_counted(process.changes, capture, facts, partial(read, pid)), state=state))
            files.update(contents)
        facts.monotonic = self._captures[self.pid].monotonic
        facts.engine = "+".join(sorted({part for capture in self._captures.values() for part in capture.engine.split("+")}))
        return Snapshot(
            processes=tuple(tree.finish(processes)),
            host=host_records(),
            files={**files, **open_files} if self.options.files else {},
            base=self.base,
            facts=facts,
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python does not look for garbage within the `with` block, which can take milliseconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _counted(
    changes: Iterable[PieceChange], capture: ProcessCapture, facts: CaptureFacts, then: Callable[[], None]
) -> Iterator[PieceChange]:
    yield from changes
    facts.bytes_read += capture.bytes_read
    then()
