"""From a live process to a Snapshot."""

from vcsimg.capture.session import Options, Session
from vcsimg.capture.target import Drafted

__all__ = ["Drafted", "Options", "Session"]
