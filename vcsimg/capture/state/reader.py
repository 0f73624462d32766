"""Everything that a capture holds of a process besides its memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.descriptors import Descriptor, DescriptorsReader
from vcsimg.capture.state.epoll import EpollProbe
from vcsimg.capture.state.eventfds import TimerfdProbe, describe_eventfd, describe_pidfd, describe_signalfd
from vcsimg.capture.state.guards import GuardsReader
from vcsimg.capture.state.hidden import HiddenReader
from vcsimg.capture.state.inotify import InotifyProbe
from vcsimg.capture.state.keyrings import KeyringsReader
from vcsimg.capture.state.locks import describe_locks
from vcsimg.capture.state.memory_files import MemoryFileProbe
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.mounts import MountsReader
from vcsimg.capture.state.own import Own
from vcsimg.capture.state.owners import OwnerProbe
from vcsimg.capture.state.pipes import PipeProbe
from vcsimg.capture.state.places import PlacesReader
from vcsimg.capture.state.policies import PoliciesReader
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.program import ProgramReader
from vcsimg.capture.state.queues import MessageQueueProbe
from vcsimg.capture.state.report import Report
from vcsimg.capture.state.signals import SignalsReader
from vcsimg.capture.state.sockets import SocketProbe
from vcsimg.capture.state.status import StatusReader
from vcsimg.capture.state.terminals import ControlReader, TerminalProbe
from vcsimg.capture.state.threads import ThreadsReader
from vcsimg.capture.state.timers import TimersReader
from vcsimg.capture.state.unsupported import describe_unsupported
from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.image.records import Record
from vcsimg.image.sections.item import Item
from vcsimg.image.snapshot import FileContent, Process, Section, Thread
from vcsimg.kernel import pidfd
from vcsimg.kernel.procfs import parse_stat
from vcsimg.process import Borrowed, HeldProcess, deferred

_UNSAVED = "unsaved"
_STARTED, _EXIT_SIGNAL = 19, 35
"""Words of stat behind the name."""


@dataclass(frozen=True)
class State:
    """What was read. `state`: sections by name, without `unsaved`; `contents`: of files that only the process still has, by sha256.
    `monotonic`: the instant, in nanoseconds of CLOCK_MONOTONIC."""

    name: str
    threads: tuple[Thread, ...]
    state: Mapping[str, Section]
    unsaved: Section
    contents: Mapping[str, FileContent]
    monotonic: int


class StateReader:
    """Reads one process, again and again:

        reader.prepare()         while it runs
        reader.read_held(held)   while it is stopped
        reader.finish()          when it runs again

    All descriptors of the process that are duplicated meanwhile are closed before read_held() returns.
    """

    def __init__(self, pid: int, *, leaving: bool = False) -> None:
        """`leaving`: see SocketProbe. Raises NoSuchProcess."""
        self.pid = pid
        self._proc = ProcDirectory.of(pid, keep=True)
        self._status = StatusReader()
        self._program = ProgramReader()
        self._places = PlacesReader()
        self._hidden = HiddenReader()
        self._keyrings = KeyringsReader()
        self._signals = SignalsReader()
        self._timers = TimersReader()
        self._threads = ThreadsReader()
        self._control = ControlReader()
        self._guards = GuardsReader()
        self._policies = PoliciesReader()
        self._records: Mapping[Item, Record] = {}
        self._trouble: str | None = None
        self._mounts = MountsReader()
        self._descriptors = DescriptorsReader(
            probes=(
                MemoryFileProbe(),
                MessageQueueProbe(),
                OwnerProbe(),
                PipeProbe(),
                SocketProbe(leaving=leaving),
                TerminalProbe(),
                EpollProbe(),
                TimerfdProbe(),
                InotifyProbe(),
            ),
            descriptions=(
                describe_eventfd,
                describe_signalfd,
                describe_pidfd,
                describe_locks,
                describe_unsupported,
            ),
        )
        self.prepare()

    def prepare(self) -> None:
        """While the process runs: what may be learnt, or made ready, early."""
        self._places.prepare()
        self._status.prepare(self._proc)
        self._keyrings.prepare(self._proc)
        self._threads.prepare(self._proc)
        self._policies.prepare(self._guards.prepare(self._proc, self.pid))
        self._borrowings = self._plan()

    def rehearse(self) -> None:
        """While it runs, right before it is stopped: read in vain what will be read then. What the processor and the kernel have at hand
        is read in half the time."""
        with suppress(OSError):
            for name in ("stat", "status"):
                self._proc.read_at_once(name)
            self._status.look(self._proc)
            self._places.look(self._proc)
            self._program.look(self._proc)
            for _ in self._descriptors.look(self._proc):
                pass

    @contextmanager
    def passing(self, held: HeldProcess) -> Iterator[None]:
        """While it is stopped for another reason than read_held(): its system calls with a timeout are known again at the next stop."""
        remember = self._threads.passing(held, self._proc, int(held.stopped_at * 1e9))
        yield
        remember()

    def recall(self, process: Process) -> None:
        """Go on from a capture of the same process that another reader has made: it knew when system calls began that the kernel
        merely continues since."""
        self._threads.recall(process.threads)

    def _plan(self) -> Borrowings:
        ask = Borrowings()
        self._status.ask(ask)
        self._timers.ask(ask)
        self._signals.ask(ask)
        self._places.ask(ask)
        self._hidden.ask(ask)
        self._keyrings.ask(ask)
        self._policies.ask(ask)
        self._own = Own.ask(ask)
        ask.make_table()
        return ask

    def read_held(self, held: HeldProcess, meanwhile: Callable[[], None] | None = None) -> None:
        """While it is stopped: everything that must be of this instant. `meanwhile` is called when no thread is borrowed any more, and much
        is still to be read. Raises ProcessChanged when the process was killed."""
        try:
            self._read(held, meanwhile)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessChanged(self.pid, "it ended while it was held") from error

    def _read(self, held: HeldProcess, meanwhile: Callable[[], None] | None) -> None:
        with self._moment(held) as moment:
            self._stat, self._monotonic = moment.stat, moment.monotonic
            self._timers.read(moment)
            asks = self._threads.read(moment)
            self._trouble = _run(held, asks, lambda borrowed: self._status.look_at_locks(moment, borrowed))
            self._threads.remember(moment, asks.keys())
            if meanwhile is not None:
                meanwhile()
            self._status.read(moment)
            self._program.read(moment)
            self._places.read(moment)
            self._hidden.read(moment)
            self._keyrings.read(moment)
            self._control.read(moment)
            self._mounts.read(moment)
            self._signals.read(moment)
            self._descriptors.read(moment)

    @contextmanager
    def _moment(self, held: HeldProcess) -> Iterator[Moment]:
        """A main thread that has ended has no files, no memory and no directory any more: then another thread speaks for the process."""
        tid = held.threads[0].tid
        proc = self._proc if tid == self.pid else ProcDirectory.of(tid)
        descriptor = pidfd.open(self.pid) if tid == self.pid else pidfd.open_thread(tid)
        try:
            yield Moment(
                held,
                tid,
                proc,
                descriptor,
                proc.link("ns/net"),
                self._stat_of(proc),
                proc.read_at_once("status"),
                self._borrowings,
                self._own,
                int(held.stopped_at * 1e9),
            )
        finally:
            os.close(descriptor)

    def _stat_of(self, proc: ProcDirectory) -> bytes:
        """Of a thread that speaks for the process: with the name, the start and the exit signal of the main one."""
        line = proc.read_at_once("stat")
        if proc is self._proc:
            return line
        head, _, own = self._proc.read_at_once("stat").rpartition(b")")
        words = line.rpartition(b")")[2].split()
        for index in (_STARTED, _EXIT_SIGNAL):
            words[index] = own.split()[index]
        return head + b") " + b" ".join(words)

    @property
    def descriptors(self) -> Iterable[Descriptor]:
        """Those that it had when it was last stopped."""
        return self._descriptors.descriptors

    @property
    def computes(self) -> bool:
        """Whether a thread of it was outside of system calls when it was last stopped."""
        return self._threads.computes

    @property
    def parent(self) -> int:
        """Its parent when it was last stopped."""
        return parse_stat(self._stat).ppid

    def finish(self) -> State:
        """When it runs again: put what was read into words."""
        report = Report(self._records)
        self._status.finish(report)
        self._guards.finish(report)
        self._policies.finish(report)
        self._program.finish(report)
        self._places.finish(report)
        self._hidden.finish(report, same_users=not self._places.differs("user"))
        self._keyrings.finish(report)
        self._descriptors.finish(report)
        self._control.finish(report)
        self._signals.finish(report)
        self._timers.finish(report)
        threads = self._threads.finish(report)
        self._mounts.finish(self._mount_ids(report), report)
        if self._places.differs("mnt"):
            self._mounts.compare(report)
        if self._trouble is not None:
            report.unsaved("borrowed system calls", self._trouble)
        self._records = report.records
        sections = dict(report.sections())
        unsaved = sections.pop(_UNSAVED, ())
        return State(parse_stat(self._stat).comm, threads, sections, unsaved, report.contents, self._monotonic)

    @staticmethod
    def _mount_ids(report: Report) -> set[int]:
        """The mounts that the records name."""
        sections = report.sections()
        records = (*sections.get("files", ()), *sections.get("status", ()))
        return {record.int("mount") for record in records if record.get("mount") is not None}


def _run(held: HeldProcess, asks: Mapping[int, Borrowings], then: Callable[[Borrowed], None]) -> str | None:
    """Let each thread make its calls, with buffers in memory that the first one gets; `then` is called as long as it has it. Returns why
    not, if it cannot be done."""
    size = max(ask.size for ask in asks.values())
    try:
        with deferred(), held.borrow() as borrowed:
            room = borrowed.scratch(size)
            for thread in held.threads:
                if thread.tid not in asks:
                    continue
                if thread.tid == borrowed.thread.tid:
                    asks[thread.tid].run(borrowed, room)
                else:
                    with held.borrow(thread) as other:
                        asks[thread.tid].run(other, room)
            then(borrowed)
    except BorrowError as error:
        return str(error)
    return None
