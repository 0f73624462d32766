"""A terminal under the control of a test: a pty, and a program that leads a session on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.conftest import wait_for
from tests.restore.reviving import heed_signals
from vcsimg.kernel import procfs

VCSIMG = [sys.executable, "-m", "vcsimg"]
ROOT = Path(__file__).parent.parent.parent
_ESCAPES = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78MDEHc]|\][^\x07\x1b]*(\x07|\x1b\\))")


class Screen:
    """`text`: all that was printed since the last expect()."""

    def __init__(self, command: Sequence[str | Path], folder: Path, size: tuple[int, int] = (24, 80), **variables: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(size)
        environment = {**os.environ, "TERM": "xterm", "PS1": "$ ", "PYTHONPATH": str(ROOT), "HOME": str(folder), **variables}
        for name in ("PROMPT_COMMAND", "VCSIMG_REPO", "COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment,
            preexec_fn=heed_signals,
        )
        os.close(slave)
        self.text = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def resize(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str, seconds: float = 30.0) -> str:
        """Wait until it has been printed, and forget all up to there. Escape sequences do not count."""
        deadline = time.monotonic() + seconds
        while True:
            plain = _ESCAPES.sub(b"", self.text)
            at = plain.find(text.encode())
            if at >= 0:
                self.text = plain[at + len(text.encode()) :]
                return plain[:at].decode(errors="replace")
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not printed, but {plain.decode(errors='replace')!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.text += os.read(self.master, 1 << 16)
                except OSError:
                    raise AssertionError(
                        f"{text!r} was not printed, but {plain.decode(errors='replace')!r}, and it has ended"
                    ) from None

    def wait_for_relay(self) -> None:
        """Until `vcsimg restore` has taken the terminal: Ctrl-C is a byte then."""
        wait_for(lambda: not termios.tcgetattr(self.master)[3] & termios.ISIG, 30)

    def end(self) -> int:
        """Its exit status; it is ended if it has not."""
        try:
            os.set_blocking(self.master, False)
            deadline = time.monotonic() + 10
            while self.process.poll() is None and time.monotonic() < deadline:
                with suppress(OSError):
                    os.read(self.master, 1 << 16)
                time.sleep(0.01)
            assert self.process.poll() is not None, self.text
            return self.process.returncode
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all that it has started."""
        if self.process.poll() is None:
            for pid in [*reversed(procfs.descendants(self.pid)), self.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
