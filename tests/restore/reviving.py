"""Capture a program, end it, restore it and let it verify itself. Run as a program, it does so as whoever runs it:

python -m tests.restore.reviving FOLDER COMMAND …      prints what the restored program printed, then its exit status
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vcsimg.capture import Options
from vcsimg.kernel import procfs
from vcsimg.recording import Recorder
from vcsimg.recording.resume import resume
from vcsimg.restore import Restored, RestoreOptions
from vcsimg.store import Repository


def heed_signals() -> None:
    """In a child: whoever runs the tests may ignore signals, and that is inherited."""
    for number in range(1, signal.NSIG):
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)


@dataclass
class Captured:
    """A program that was captured when it had printed its first line, `ready …`, and whose input had not been used since."""

    repository: Repository
    commit: str
    pid: int
    ready: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it and all that it has started."""
        # Not all of them may still be there.
        for pid in [*reversed(procfs.descendants(self.pid)), self.pid] if self.process.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def capture(command: Sequence[str | Path], folder: Path, **options: object) -> Captured:
    """Start a program and capture it with all its descendants."""
    repository = Repository.init(Path(tempfile.mkdtemp(dir=folder)) / "repository")
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        preexec_fn=heed_signals,
        **options,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    ready = process.stdout.readline().decode().rstrip("\n")
    with Recorder(repository, process.pid, Options(scratch=folder, tree=True)) as recorder:
        commit = recorder.capture().commit
    return Captured(repository, commit, process.pid, ready, process)


@dataclass
class Revived:
    """A restored program; its standard input and output are pipes."""

    restored: Restored
    branch: str
    stdin: int
    stdout: int
    output: bytes = field(default=b"")

    def finish(self, text: bytes = b"go\n") -> tuple[str, int]:
        """Send it a line, and wait for its end: what it printed, and its exit status."""
        with suppress(BrokenPipeError):
            os.write(self.stdin, text)
        while part := os.read(self.stdout, 1 << 16):
            self.output += part
        status = os.waitstatus_to_exitcode(self.restored.space.wait())
        self.close()
        return self.output.decode(), status

    def close(self) -> None:
        """End it."""
        for fd in (self.stdin, self.stdout):
            os.close(fd)
        self.restored.space.close()


def revive(repository: Repository, commit: str, **options: object) -> Revived:
    """Restore a capture."""
    stdin, to_it = os.pipe()
    from_it, stdout = os.pipe()
    try:
        restored, branch = resume(repository, commit, RestoreOptions(standard=(stdin, stdout, 2), **options))  # type: ignore[arg-type]
    except BaseException:
        os.close(to_it)
        os.close(from_it)
        raise
    finally:
        os.close(stdin)
        os.close(stdout)
    return Revived(restored, branch, to_it, from_it)


def capture_and_revive(command: Sequence[str | Path], folder: Path) -> tuple[str, int]:
    captured = capture(command, folder)
    captured.kill()
    try:
        return revive(captured.repository, captured.commit).finish()
    finally:
        captured.repository.close()


if __name__ == "__main__":
    text, code = capture_and_revive(sys.argv[2:], Path(sys.argv[1]))
    print(text, code, sep="\n")
