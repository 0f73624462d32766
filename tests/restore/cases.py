"""Programs that verify themselves, as whoever runs this. Each prints `ready`, reads a line, prints `verified` and ends with status 42. Several, each in
one way or both:

python -m tests.restore.cases FOLDER NAME:WAY,WAY=COMMAND …     prints a line of JSON for each: its name, then an Outcome for each way

killed    captured, killed, and restored
beside    captured, left running, and restored twice; all three are alive at once, and verify themselves
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.restore.reviving import Captured, Revived, capture, revive
from vcsimg.errors import VcsimgError

_VERIFIED = 42
_PATIENCE = 60.0
"""Seconds after which a case that hangs is ended."""


@dataclass(frozen=True)
class Outcome:
    """`kind`: `unable` when the program could not set the case up, `refused` when a capture or restore was, `ended` when the program has;
    `text` says what each has printed, with its status, the last restored one first; `notes`: what restoring said about what is other than it was."""

    kind: str
    text: str
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        return self.kind == "ended" and bool(self.text) and all(line == "verified 42" for line in self.text.splitlines())


@contextmanager
def _watched(pid: int) -> Iterator[None]:
    """A process is killed if it takes too long."""
    timer = threading.Timer(_PATIENCE, _end, (pid,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _last(text: str) -> str:
    """The last line."""
    return text.rstrip("\n").rpartition("\n")[2]


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _finish(revived: Revived) -> str:
    with _watched(revived.restored.space.init):
        text, status = revived.finish()
    return f"{_last(text) if status == _VERIFIED else text.rstrip()} {status}"


def _killed(captured: Captured) -> Outcome:
    captured.kill()
    revived = revive(captured.repository, captured.commit)
    return Outcome("ended", _finish(revived), revived.restored.notes)


def _beside(captured: Captured) -> Outcome:
    copies: list[Revived] = []
    notes: list[str] = []
    try:
        for _ in range(2):
            copies.append(revive(captured.repository, captured.commit))
            notes += copies[-1].restored.notes
        found = []
        while copies:
            found.append(_finish(copies.pop()))
    finally:
        for copy in copies:
            copy.close()
    with _watched(captured.pid):
        text, _ = captured.process.communicate(b"go\n")
    return Outcome("ended", "\n".join([*found, f"{_last(text.decode())} {captured.process.returncode}"]), tuple(notes))


WAYS = {"killed": _killed, "beside": _beside}


def outcome(command: Sequence[str | Path], way: str, folder: Path) -> Outcome:
    """What has become of a program, in a folder of its own."""
    captured = None
    try:
        captured = capture(command, folder)
        if captured.ready != "ready":
            return Outcome("unable", captured.ready)
        return WAYS[way](captured)
    except VcsimgError as error:
        return Outcome("refused", str(error))
    finally:
        if captured is not None:
            captured.kill()
            captured.repository.close()


def main() -> int:
    for word in sys.argv[2:]:
        case, _, command = word.partition("=")
        name, _, ways = case.partition(":")
        found = {}
        for way in ways.split(","):
            with tempfile.TemporaryDirectory(dir=sys.argv[1], ignore_cleanup_errors=True) as folder:
                try:
                    found[way] = outcome(shlex.split(command), way, Path(folder))
                except Exception:
                    found[way] = Outcome("broken", traceback.format_exc())
        print(json.dumps([name, {way: asdict(one) for way, one in found.items()}]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
