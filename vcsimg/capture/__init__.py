"""From a live process to a Snapshot."""

from vcsimg.capture.session import Options, Session

__all__ = ["Options", "Session"]
