"""A live process held still, and given back as it was."""

from __future__ import annotations

from vcsimg.process.borrow import Borrowed
from vcsimg.process.code import find_code_early
from vcsimg.process.crowd import Crowd
from vcsimg.process.frozen import FrozenChild, fork_frozen
from vcsimg.process.held import HeldProcess, hold, hold_tree
from vcsimg.process.interrupts import deferred
from vcsimg.process.thread import HeldThread
from vcsimg.process.waits import WaitMemory
from vcsimg.process.watching import open_userfaultfd

__all__ = [
    "Borrowed", "Crowd", "FrozenChild", "HeldProcess", "HeldThread", "WaitMemory", "deferred", "find_code_early", "fork_frozen", "hold", "hold_tree",
    "open_userfaultfd",
]  # fmt: skip
