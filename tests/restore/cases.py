"""One case of a program of many (tests/targets/restore_cases.h). Run as a program, several, as whoever runs it:

python -m tests.restore.cases FOLDER PROGRAM:CASE …     prints those that fail
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from tests.restore.reviving import capture, revive
from vcsimg.errors import VcsimgError

_PATIENCE = 30.0
"""Seconds after which a case that hangs is ended."""


def outcome(program: Path, name: str, folder: Path) -> tuple[str, int]:
    """What the restored program printed, and its exit status. Raises VcsimgError."""
    captured = capture([program, name], folder)
    captured.kill()
    assert captured.ready == "ready", captured.ready
    try:
        revived = revive(captured.repository, captured.commit)
        init = revived.restored.space.init
        watchdog = threading.Timer(_PATIENCE, _end, (init,))
        watchdog.start()
        try:
            return revived.finish()
        finally:
            watchdog.cancel()
    finally:
        captured.repository.close()


def _end(init: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(init, signal.SIGKILL)


def main() -> int:
    failed = 0
    for word in sys.argv[2:]:
        program, _, name = word.rpartition(":")
        try:
            found = outcome(Path(program), name, Path(tempfile.mkdtemp(dir=sys.argv[1])))
        except (VcsimgError, AssertionError) as error:
            found = str(error), 1
        if found != ("verified\n", 42):
            print(name, *found)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
