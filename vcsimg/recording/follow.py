"""The loop of a recorder: captures at an interval and on demand, until the process ends or the user has enough."""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from vcsimg.errors import (
    NO_ROOM,
    AlreadyTraced,
    BorrowError,
    DiskFull,
    NoSuchProcess,
    ProcessChanged,
    RepositoryReadOnly,
    StopTimeout,
    StoreError,
    VcsimgError,
)
from vcsimg.kernel import pidfd, procfs
from vcsimg.recording.control import Control
from vcsimg.recording.recorder import Recorded, Recorder

_PASSING = (AlreadyTraced, BorrowError, DiskFull, NoSuchProcess, ProcessChanged, StopTimeout)
"""Errors of the moment: the next capture may succeed."""

_TRIES = 3
_EXIT_MILLISECONDS = 200
"""How long a process takes from giving up its memory, when captures begin to fail, to being a zombie."""


class Wishes:
    """What signals ask of the loop: to stop, or to capture now. Installs handlers for the life of its `with` block."""

    def __init__(self, stop: Sequence[int], capture: Sequence[int]) -> None:
        self.stopping = 0
        """The signal that asks to stop; 0: none has."""
        self.wanted = False
        self._stop = stop
        self._capture = capture
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, object] = {}
        self._before_fd = -1

    def fileno(self) -> int:
        return self._read

    def __enter__(self) -> Wishes:
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*self._stop, *self._capture):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._before_fd)
        os.close(self._read)
        os.close(self._write)

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 512)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number in self._capture:
            self.wanted = True
        else:
            self.stopping = number


@dataclass(frozen=True)
class Ending:
    """Why a recording ended: the process "ended", the "count" is reached, or it was "stopped" by `signal`."""

    reason: Literal["ended", "count", "stopped"]
    signal: int = 0


def follow(
    recorder: Recorder,
    repository: Path,
    *,
    every: float | None,
    count: int | None = None,
    patient: bool = False,
    stop_signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    capture_signals: Sequence[int] = (signal.SIGUSR1,),
    on_capture: Callable[[Recorded], None],
    on_error: Callable[[VcsimgError], None],
) -> Ending:
    """Record until the process ends, `count` captures are made, or a stop signal comes.

    The first capture is made at once. `every`: seconds from the beginning of one capture to that of the next; a capture that takes
    longer delays the next, none is made up for. None: further ones only on demand. A capture that fails because of the moment (a full
    disk, a thread that cannot be stopped, a debugger) is reported by `on_error` and the recording goes on; the first one must succeed,
    unless `patient`.
    A signal never interrupts a capture that is being stored.
    """
    made = 0

    def capture(message: str | None = None) -> str:
        nonlocal made
        recorded = _insisting(recorder, message)
        made += 1
        on_capture(recorded)
        return recorded.commit

    with (
        _ended_fd(recorder.pid) as ended,
        Wishes(stop_signals, capture_signals) as wishes,
        _control(repository, recorder.pid) as control,
    ):
        poll = select.poll()
        for descriptor in (ended, wishes.fileno(), control.fileno()):
            poll.register(descriptor, select.POLLIN)
        due = time.monotonic()
        while True:
            if wishes.stopping:
                return Ending("stopped", wishes.stopping)
            if count is not None and made >= count:
                return Ending("count")
            # Looked at before every capture, due or not: a recorder that is always late must still answer.
            ready = {descriptor for descriptor, _ in poll.poll(_milliseconds(due, wishes))}
            if wishes.fileno() in ready:
                wishes.drain()
            if ended in ready:
                return Ending("ended")
            if wishes.stopping:
                continue
            try:
                if control.fileno() in ready:
                    control.serve(capture)
                elif wishes.wanted or time.monotonic() >= due:
                    wishes.wanted = False
                    due = math.inf if every is None else max(due + every, time.monotonic())
                    capture()
            except VcsimgError as error:
                if _is_over(recorder.pid, ended):
                    return Ending("ended")
                if not isinstance(error, _PASSING) or (made == 0 and not patient):
                    raise
                on_error(error)


def _insisting(recorder: Recorder, message: str | None) -> Recorded:
    """A capture, tried again when the process calls exec just then: it did if we have just started it, since exec is not over when
    posix_spawn returns (it waits for the old memory to be given up, fs/exec.c exec_mmap)."""
    for _ in range(_TRIES - 1):
        try:
            return recorder.capture(message)
        except ProcessChanged:
            time.sleep(0.005)
    return recorder.capture(message)


def _milliseconds(due: float, wishes: Wishes) -> float | None:
    """How long to wait for something to happen."""
    if wishes.wanted or wishes.stopping:
        return 0
    return None if due == math.inf else max(0.0, due - time.monotonic()) * 1000


@contextmanager
def _ended_fd(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when the process ends (pidfd_open(2))."""
    try:
        descriptor = pidfd.open(pid)
    except ProcessLookupError:
        raise NoSuchProcess(pid) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _control(repository: Path, pid: int) -> Iterator[Control]:
    """The socket for requests. Raises StoreError if the repository has no place for it."""
    try:
        control = Control(repository, pid)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RepositoryReadOnly(str(repository)) from error
        if error.errno in NO_ROOM:
            raise DiskFull(str(repository), error.errno) from error
        raise StoreError(str(repository), f"no socket for requests can be made in it: {error.strerror}") from error
    try:
        yield control
    finally:
        control.close()


def _is_over(pid: int, ended: int) -> bool:
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    if poll.poll(_EXIT_MILLISECONDS):
        return True
    try:
        return procfs.stat(pid).state in "ZX"
    except OSError:
        return True
