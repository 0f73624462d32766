"""Snapshot ↔ git. The only room that knows pygit2, git's files or the git command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcsimg.store.captures import Capture
from vcsimg.store.names import branch_name
from vcsimg.store.refs import Branch
from vcsimg.store.repository import Repository

if TYPE_CHECKING:
    from vcsimg.store.walker import Walker

__all__ = ["Branch", "Capture", "Repository", "Walker", "branch_name"]


def __getattr__(name: str) -> object:
    """Walker is imported when it is used: it needs numpy, which takes longer than `vcsimg log` does."""
    if name != "Walker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vcsimg.store.walker import Walker

    return Walker
