"""A stop in vain, of a process of our own, right before that of the target.

What is done for the first time takes several times as long. When much was copied the processor's caches are full of that, and a virtual
machine's idle processors sleep deeply: the first threads that are woken take twice as long. All that is over after a first stop; so that is another
process's.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from vcsimg.capture.state import StateReader, TreeState
from vcsimg.errors import VcsimgError
from vcsimg.process import find_code_early, hold

_TIMES = 2
_COMMAND = "cat"


class Rehearsal:
    """A child that waits for the end of its input, which comes when we end, whatever ends us. Without such a program, nothing is rehearsed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: StateReader | None = None
        self._begun = False

    def prepare(self) -> bool:
        """Start the child, if that was not done yet; whether it was not."""
        first, self._begun = not self._begun, True
        if first:
            with suppress(OSError, VcsimgError):
                self._child = subprocess.Popen([_COMMAND], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
                self._reader = StateReader(self._child.pid)
                find_code_early(self._child.pid)
        return first

    def play(self) -> None:
        """Stop it, read it, and let it go."""
        if self._child is None or self._reader is None:
            return
        try:
            for _ in range(_TIMES):
                with hold(self._child.pid) as held:
                    self._reader.read_held(held)
                    TreeState().read_held([held])
        except (OSError, VcsimgError):
            self._reader = None  # it was ended by somebody

    def close(self) -> None:
        """End the child. Nothing more happens when called again."""
        child, self._child, self._reader, self._begun = self._child, None, None, False
        if child is not None:
            child.kill()
            child.communicate()
