"""What happened while recording: as JSON lines for programs, and summed up for people.

{"event": "start", "pid": 4242, "name": "redis-server", "branch": "redis-server.4242.20260301-140559"}
{"event": "capture", "commit": "9ad1…", "pause_us": 412, …}
{"event": "error", "error": "…", "remedy": "…"}
{"event": "end", "reason": "ended", "captures": 12, …}
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vcsimg.cli.output import count, duration, size
from vcsimg.errors import VcsimgError

if TYPE_CHECKING:
    from vcsimg.recording import Recorded, Recorder


def as_dict(recorded: Recorded) -> dict[str, Any]:
    """One capture, for programs: times in microseconds, sizes in bytes."""
    return {
        "commit": recorded.commit,
        "branch": recorded.branch,
        "engine": recorded.engine,
        "pause_us": round(recorded.pause * 1e6),
        "wall_us": round(recorded.wall * 1e6),
        "bytes_read": recorded.bytes_read,
        "bytes_stored": recorded.bytes_stored,
        "pages_changed": recorded.pages_changed,
        "unsaved": [{"resource": item["resource"], "reason": item["reason"]} for item in recorded.unsaved],
    }


class EventLog:
    """JSON lines to a file, a named pipe or /dev/fd/N, to standard output ("-"), or nowhere (None).

    A file that can no longer be written (its disk is full, nobody reads the pipe) ends no recording: `failure` says so, and nothing more
    is written to it.
    """

    def __init__(self, path: str | None) -> None:
        self.failure: VcsimgError | None = None
        self._path = path
        self._stream: TextIO | None = None
        if path == "-":
            self._stream = sys.stdout
        elif path is not None:
            try:
                self._stream = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - it stays open until we end
            except OSError as error:
                raise VcsimgError(f"{path}: {error.strerror}", remedy="Name a file that can be written.") from None

    def start(self, recorder: Recorder) -> None:
        self._write({"event": "start", "pid": recorder.pid, "name": recorder.name, "branch": recorder.branch})

    def capture(self, recorded: Recorded) -> None:
        self._write({"event": "capture", **as_dict(recorded)})

    def error(self, error: VcsimgError) -> None:
        self._write({"event": "error", "error": str(error), "remedy": error.remedy})

    def end(self, reason: str, tally: Tally, **more: Any) -> None:
        facts = {"captures": tally.captures, "failed": tally.failed, "longest_pause_us": round(tally.longest * 1e6)}
        self._write({"event": "end", "reason": reason, **facts, "bytes_stored": tally.stored, **more})

    def _write(self, event: dict[str, Any]) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()
        except OSError as error:
            if self._path == "-":
                raise
            self.failure = VcsimgError(f"{self._path}: {error.strerror}", remedy="Events are missing there from then on.")
            with suppress(OSError):
                self._stream.close()
            self._stream = None


@dataclass
class Tally:
    """Sums over a recording: seconds, bytes."""

    captures: int = 0
    failed: int = 0
    longest: float = 0.0
    stored: int = 0

    def add(self, recorded: Recorded) -> None:
        self.captures += 1
        self.longest = max(self.longest, recorded.pause)
        self.stored += recorded.bytes_stored

    def __str__(self) -> str:
        parts = [count(self.captures, "capture")]
        if self.captures:
            parts += [f"longest pause {duration(self.longest)}", f"{size(self.stored)} stored"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts)
