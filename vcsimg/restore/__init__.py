"""Snapshot → running processes."""

from vcsimg.restore.context import FILES, OUTSIDE, TCP, RestoreOptions
from vcsimg.restore.restoring import Restored, restore

__all__ = ["FILES", "OUTSIDE", "TCP", "RestoreOptions", "Restored", "restore"]
