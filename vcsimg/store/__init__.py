"""Snapshot ↔ git. The only room that knows pygit2, git's files or the git command."""

from vcsimg.store.captures import Capture
from vcsimg.store.names import branch_name
from vcsimg.store.refs import Branch
from vcsimg.store.repository import Repository
from vcsimg.store.walker import Walker

__all__ = ["Branch", "Capture", "Repository", "Walker", "branch_name"]
