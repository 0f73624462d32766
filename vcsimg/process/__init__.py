"""A live process held still, and given back as it was."""

from __future__ import annotations

from vcsimg.process.borrow import Borrowed
from vcsimg.process.held import HeldProcess, hold, hold_tree
from vcsimg.process.thread import HeldThread

__all__ = ["Borrowed", "HeldProcess", "HeldThread", "hold", "hold_tree"]
