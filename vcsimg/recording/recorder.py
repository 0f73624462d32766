"""A recorder: one process (or tree), one branch."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vcsimg.capture import Drafted, Options, Session
from vcsimg.errors import DiskFull, NoSuchProcess, ProcessChanged, UnsupportedProcess
from vcsimg.image.pages import PieceChange
from vcsimg.image.records import Record
from vcsimg.kernel import pidfd, procfs
from vcsimg.process.refusal import refusal, unsupported_reason
from vcsimg.recording.shield import Shield
from vcsimg.source import revision_at
from vcsimg.store import Draft, Repository, branch_name

_EXIT_MILLISECONDS = 200
_TOLD_EVERY = 0.1


@dataclass(frozen=True)
class Recorded:
    """One capture that is in the repository. Times in seconds; `wall` from its beginning until it was durable."""

    commit: str
    branch: str
    engine: str
    pause: float
    wall: float
    bytes_read: int
    pages_changed: int
    bytes_stored: int
    unsaved: tuple[Record, ...]


class Recorder:
    """Captures of one process into its branch of a repository, as a context manager: it holds the branch's lock.

    Raises ProcessError if the process cannot be captured, RepositoryBusy if another recorder holds the branch.
    """

    def __init__(self, repository: Repository, pid: int, options: Options) -> None:
        self._repository = repository
        self.pid = pid
        try:
            status, stat = procfs.status(pid), procfs.stat(pid)
            self.started_at = procfs.start_time(pid)
            self.name = procfs.comm(pid)
        except OSError:
            raise NoSuchProcess(pid) from None
        if (reason := unsupported_reason(status, stat)) is not None:
            raise UnsupportedProcess(pid, reason)
        leader = int(status["Tgid"])
        if leader != pid:
            raise UnsupportedProcess(pid, f"it is a thread of process {leader}", remedy=f"Use {leader} instead.")
        known = repository.branch_of(pid, stat.starttime, procfs.boot_id())
        self.branch = known or repository.free_branch(branch_name(self.name, pid, self.started_at))
        self._source = _source_of(pid, self.started_at)
        base = repository.tip(self.branch)
        self._session = Session(pid, options, repository.load, base)
        self._locks = ExitStack()
        self.progress: Callable[[int, int], None] | None = None
        """Told now and then of a first capture that takes a while: bytes that were read of a large process while it runs, of how many."""

    def __enter__(self) -> Recorder:
        self._locks.enter_context(self._repository.lock(self.branch))
        # Another recorder may have written between the constructor and the lock.
        self._session.base = self._repository.tip(self.branch)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session.close()
        finally:
            self._locks.close()

    def capture(self, message: str | None = None) -> Recorded:
        """One capture, durable in the repository when this returns. On an error nothing was committed and the process runs on."""
        began = time.monotonic()
        with _explained(self.pid), self._repository.draft(self.branch) as draft, Shield() as shield:
            self._draft(draft, shield)
            with self._session.capture() as snapshot, shield.lowered():
                facts = snapshot.facts
                assert facts is not None
                facts.source_commit = self._source
                base = self._session.base
                before = self._repository.bytes_written
                parents = [base] if base else []
                commit = self._repository.commit(snapshot, branch=self.branch, parents=parents, message=message or "", draft=draft)
                wall = time.monotonic() - began
                self._session.stored(commit)
        return Recorded(
            commit=commit,
            branch=self.branch,
            engine=facts.engine,
            pause=facts.pause,
            wall=wall,
            bytes_read=facts.bytes_read,
            pages_changed=facts.pages_changed,
            bytes_stored=self._repository.bytes_written - before,
            unsaved=tuple(record for process in snapshot.processes for record in process.section("unsaved")),
        )

    def _draft(self, draft: Draft, shield: Shield) -> None:
        """Store what can be stored of a first capture before the process is stopped. Where there is no room for a copy of it beside the
        repository, nothing: then it is forked."""
        with closing(self._session.draft()) as parts:
            try:
                for part in parts:
                    with shield.lowered():
                        draft.add(part.pid, part.regions, self._watched(part))
            except DiskFull:
                draft.abandon()

    def _watched(self, part: Drafted) -> Iterator[PieceChange]:
        done = 0
        told = time.monotonic()
        for change in part.changes:
            yield change
            done += change.new.nbytes
            if self.progress is not None and time.monotonic() - told > _TOLD_EVERY:
                told = time.monotonic()
                self.progress(done, part.size)


@contextmanager
def _explained(pid: int) -> Iterator[None]:
    """A process can end between any two looks at it, and may forbid them: then say so. Which error the kernel gives for a process that is
    ending depends on the call: ESRCH, ENOENT, ENOMEM (userfaultfd), …"""
    try:
        yield
    except OSError as error:
        if _has_ended(pid):
            raise ProcessChanged(pid, "it ended while it was being captured") from error
        of_process = str(error.filename or "").startswith("/proc/")
        if error.errno in (errno.ESRCH, errno.ENOMEM) or (of_process and isinstance(error, FileNotFoundError)):
            raise ProcessChanged(pid, "a process below it ended while it was being captured") from error
        if of_process and isinstance(error, PermissionError):
            raise refusal(pid) from error
        raise


def _has_ended(pid: int) -> bool:
    """Whether a process is gone or a zombie, or becomes one in a moment: it gives up its memory first."""
    try:
        descriptor = pidfd.open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(_EXIT_MILLISECONDS))
    finally:
        os.close(descriptor)


def _source_of(pid: int, started_at: float) -> str | None:
    """The source revision of a process, if its folder lies in a git checkout."""
    try:
        return revision_at(Path(f"/proc/{pid}/cwd").readlink(), started_at)
    except OSError:
        return None
