"""The instant of a capture, as the modules of this package see it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.process import HeldProcess


@dataclass(slots=True)
class Moment:
    """All threads of the process are stopped. `proc`: its /proc/PID; `pidfd`: -1 where the kernel gives none.

    `status`, `stat`: content of these files now. What is added to `borrowings` is called when all modules have read, by the main thread.
    """

    held: HeldProcess
    proc: ProcDirectory
    pidfd: int
    stat: bytes
    status: bytes
    borrowings: Borrowings = field(default_factory=Borrowings)
