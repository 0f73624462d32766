"""From a live process into a repository, once or again and again: where capture and store meet."""

from vcsimg.recording.recorder import Recorded, Recorder

__all__ = ["Recorded", "Recorder"]
