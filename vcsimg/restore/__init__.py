"""Snapshot → running processes."""

from vcsimg.restore.context import FILES, OUTSIDE, TCP, RestoreOptions
from vcsimg.restore.ptys import Pty
from vcsimg.restore.restoring import Restored, restore
from vcsimg.restore.space import Space

__all__ = ["FILES", "OUTSIDE", "TCP", "Pty", "RestoreOptions", "Restored", "Space", "restore"]
