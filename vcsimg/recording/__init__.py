"""From a live process into a repository, once or again and again: where capture and store meet."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcsimg.recording.control import recorders, request_capture
    from vcsimg.recording.follow import Ending
    from vcsimg.recording.launch import leave_as
    from vcsimg.recording.recorder import Recorded, Recorder

__all__ = ["Ending", "Recorded", "Recorder", "leave_as", "recorders", "request_capture"]

_HOME = {
    "Ending": "follow",
    "Recorded": "recorder",
    "Recorder": "recorder",
    "leave_as": "launch",
    "recorders": "control",
    "request_capture": "control",
}


def __getattr__(name: str) -> object:
    """Imported when it is used (PEP 562): asking a recorder for a capture need not wait for all that a recorder needs."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
