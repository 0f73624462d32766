"""The instant of a capture, as the modules of this package see it."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.own import Own
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.process import HeldProcess


@dataclass(slots=True)
class Moment:
    """All threads of the process are stopped. `tid`: the thread that speaks for it, the main thread unless that has ended.

    `proc`: /proc/TID of that thread; `pidfd`: a descriptor for it.

    `status`, `stat`: content of these files now. What is added to `borrowings` is called when all modules have read, by one thread.
    `own`: the questions of that thread's own among them. `monotonic`: the instant, in nanoseconds of CLOCK_MONOTONIC.
    """

    held: HeldProcess
    tid: int
    proc: ProcDirectory
    pidfd: int
    network: str
    stat: bytes
    status: bytes
    borrowings: Borrowings
    own: Own
    monotonic: int
