"""From a live process into a repository, once or again and again: where capture and store meet."""

from vcsimg.recording.control import recorders, request_capture
from vcsimg.recording.follow import Ending, follow
from vcsimg.recording.launch import leave_as
from vcsimg.recording.recorder import Recorded, Recorder
from vcsimg.recording.run import run

__all__ = ["Ending", "Recorded", "Recorder", "follow", "leave_as", "recorders", "request_capture", "run"]
