"""Everything that a capture holds of a process besides its memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.descriptors import DescriptorsReader
from vcsimg.capture.state.epoll import EpollProbe
from vcsimg.capture.state.eventfds import describe_eventfd, describe_pidfd, describe_signalfd, describe_timerfd
from vcsimg.capture.state.inotify import InotifyProbe
from vcsimg.capture.state.locks import describe_locks
from vcsimg.capture.state.memory_files import MemoryFileProbe
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.mounts import MountsReader
from vcsimg.capture.state.owners import OwnerProbe
from vcsimg.capture.state.pipes import PipeProbe
from vcsimg.capture.state.places import PlacesReader
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.program import ProgramReader
from vcsimg.capture.state.queues import MessageQueueProbe
from vcsimg.capture.state.report import Report
from vcsimg.capture.state.signals import SignalsReader
from vcsimg.capture.state.sockets import SocketProbe
from vcsimg.capture.state.status import StatusReader
from vcsimg.capture.state.terminals import ControlReader, TerminalProbe
from vcsimg.capture.state.threads import Own, ThreadsReader
from vcsimg.capture.state.timers import TimersReader
from vcsimg.capture.state.unsupported import describe_unsupported
from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.image.snapshot import FileContent, Section, Thread
from vcsimg.kernel import pidfd
from vcsimg.kernel.procfs import parse_stat
from vcsimg.process import HeldProcess

_UNSAVED = "unsaved"


@dataclass(frozen=True)
class State:
    """What was read. `state`: sections by name, without `unsaved`; `contents`: of files that only the process still has, by sha256."""

    name: str
    threads: tuple[Thread, ...]
    state: Mapping[str, Section]
    unsaved: Section
    contents: Mapping[str, FileContent]


class StateReader:
    """Reads one process, again and again:

        reader.prepare()         while it runs
        reader.read_held(held)   while it is stopped
        reader.finish()          when it runs again

    All descriptors of the process that are duplicated meanwhile are closed before read_held() returns.
    """

    def __init__(self, pid: int) -> None:
        """Raises NoSuchProcess."""
        self.pid = pid
        self._proc = ProcDirectory.of(pid)
        self._status = StatusReader()
        self._program = ProgramReader()
        self._places = PlacesReader()
        self._signals = SignalsReader()
        self._timers = TimersReader()
        self._threads = ThreadsReader(pid)
        self._control = ControlReader()
        self._trouble: str | None = None
        self._mounts = MountsReader()
        self._descriptors = DescriptorsReader(
            pid,
            probes=(
                MemoryFileProbe(),
                MessageQueueProbe(),
                OwnerProbe(),
                PipeProbe(),
                SocketProbe(pid),
                TerminalProbe(),
                EpollProbe(pid),
                InotifyProbe(pid),
            ),
            descriptions=(
                describe_eventfd,
                describe_signalfd,
                describe_timerfd,
                describe_pidfd,
                describe_locks,
                describe_unsupported,
            ),
        )

    def prepare(self) -> None:
        """While the process runs: what may be learnt early."""
        self._proc.try_read("status")

    def read_held(self, held: HeldProcess, *, handlers: bool = True) -> None:
        """While it is stopped: everything that must be of this instant. Raises ProcessChanged when the process was killed.

        `handlers` false: the signal handlers are left for read_handlers().
        """
        try:
            self._read(held, handlers)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessChanged(self.pid, "it ended while it was held") from error

    def read_handlers(self, child: HeldProcess) -> None:
        """The signal handlers, from a held child that clone(2) or fork(2) made at the instant: it has the same."""
        ask = Borrowings()
        self._signals.ask_handlers(ask)
        self._trouble = self._trouble or _run(child, {child.threads[0].tid: ask})

    def _read(self, held: HeldProcess, with_handlers: bool) -> None:
        proc = self._proc
        stat, status = proc.read("stat"), proc.read("status")
        descriptor = pidfd.open(self.pid)
        try:
            moment = Moment(held, proc, descriptor, stat, status)
            self._stat = stat
            self._status.read(moment)
            self._program.read(moment)
            self._places.read(moment)
            self._control.read(moment)
            self._signals.read(moment)
            self._timers.read(moment)
            self._descriptors.read(moment)
        finally:
            os.close(descriptor)
        if with_handlers:
            self._signals.ask_handlers(moment.borrowings)
        asks = {thread.tid: Borrowings() for thread in held.threads[1:]}
        asks = {held.threads[0].tid: moment.borrowings, **asks}
        self._threads.read(moment, {tid: Own.ask(ask) for tid, ask in asks.items()})
        self._trouble = _run(held, asks)

    def finish(self) -> State:
        """When it runs again: put what was read into words."""
        report = Report()
        self._status.finish(report)
        self._program.finish(report)
        self._places.finish(report)
        self._descriptors.finish(report)
        self._control.finish(report)
        self._signals.finish(report)
        self._timers.finish(report)
        threads = self._threads.finish(report)
        self._mounts.finish(self._proc, self._mount_ids(report), report)
        if self._trouble is not None:
            report.unsaved("borrowed system calls", self._trouble)
        sections = dict(report.sections())
        unsaved = sections.pop(_UNSAVED, ())
        return State(parse_stat(self._stat).comm, threads, sections, unsaved, report.contents)

    @staticmethod
    def _mount_ids(report: Report) -> set[int]:
        """The mounts that the records name."""
        sections = report.sections()
        records = (*sections.get("files", ()), *sections.get("status", ()))
        return {record.int("mount") for record in records if record.get("mount") is not None}


def _run(held: HeldProcess, asks: Mapping[int, Borrowings]) -> str | None:
    """Let each thread make its calls, with buffers in memory that the first one gets. Returns why not, if it cannot be done."""
    size = max(ask.size for ask in asks.values())
    try:
        with held.borrow() as borrowed:
            room = borrowed.scratch(size)
            for thread in held.threads:
                if thread.tid not in asks:
                    continue
                if thread.tid == borrowed.thread.tid:
                    asks[thread.tid].run(borrowed, room)
                else:
                    with held.borrow(thread) as other:
                        asks[thread.tid].run(other, room)
    except BorrowError as error:
        return str(error)
    return None
