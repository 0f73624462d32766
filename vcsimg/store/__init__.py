"""Snapshot ↔ git. The only room that knows pygit2, git's files or the git command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vcsimg.store.captures import Capture
from vcsimg.store.names import branch_name
from vcsimg.store.refs import Branch
from vcsimg.store.repository import Repository

if TYPE_CHECKING:
    from vcsimg.store.committer import Draft
    from vcsimg.store.walker import Walker

__all__ = ["Branch", "Capture", "Draft", "Repository", "Walker", "branch_name"]

_LATE = {"Draft": "vcsimg.store.committer", "Walker": "vcsimg.store.walker"}


def __getattr__(name: str) -> object:
    """Walker and Draft are imported when they are used: they need numpy, which takes longer than `vcsimg log` does."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
