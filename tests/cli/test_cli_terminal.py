"""On a terminal: colours and a status line for people; for `run`, the terminal is the program's."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from typing import Any

from tests.cli.conftest import Cli
from tests.conftest import Target

Start = Callable[..., Target]


class Terminal:
    """A command whose controlling terminal is a new pseudo-terminal of 100 columns."""

    def __init__(self, cli: Cli, *arguments: object, environment: dict[str, Any] | None = None) -> None:
        command = cli.command(*arguments)
        variables = cli.environment(**environment or {})
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
            os.chdir(cli.folder)
            os.execve(command[0], command, variables)
        self.said = ""

    def read_until(self, pattern: str) -> str:
        """What was printed up to a pattern; fails when it does not come."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, self.said
            if not self._read():
                raise AssertionError(f"ended without {pattern!r}: {self.said!r}")
        return self.said

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 60)[0]:
            return False
        try:
            data = os.read(self.master, 4096)
        except OSError:  # EIO: the other side is closed
            return False
        self.said += data.decode()
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for its end; its exit status as subprocess says it."""
        while self._read():
            pass
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def bare(text: str) -> str:
    """Without colours and the like."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_colours_come_on_a_terminal_and_no_color_is_honoured(cli: Cli, start: Start) -> None:
    cli("capture", start("/bin/sleep", 60).pid)
    coloured = Terminal(cli, "log")
    assert coloured.end() == 0
    assert "\x1b[33m" in coloured.said
    plain = Terminal(cli, "log", environment={"NO_COLOR": "1"})
    assert plain.end() == 0
    assert "\x1b[3" not in plain.said
    assert bare(coloured.said) == plain.said == cli("log").stdout.replace("\n", "\r\n")


def test_tables_fit_the_window(cli: Cli) -> None:
    shown = Terminal(cli, "doctor")
    assert shown.end() == 0
    assert max(len(line) for line in bare(shown.said).splitlines()) <= 100


def test_record_shows_a_status_line_and_leaves_the_terminal_clean(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    terminal = Terminal(cli, "record", target.pid, "--every", "50ms")
    said = bare(terminal.read_until("3 captures.*iB  \\S+[0-9a-f]{12}"))
    assert re.search(r"\r\x1b\[K● demo_exchange-\S* \d+  3 captures  paused [^,]*, at most .*iB  [0-9a-f]{12}(\r|\Z)", said)
    assert "\n" not in said[said.index("●") :]
    terminal.type("\x03")
    assert terminal.end() == 130
    assert re.search(r"\r\x1b\[K(\^C)?(\r\x1b\[K)?stopped: \d+ captures, longest pause [^\r]*stored\r\n\Z", bare(terminal.said))
    assert target.process.poll() is None


def test_a_first_capture_of_a_large_process_shows_how_far_it_is(cli: Cli, start: Start) -> None:
    target = start("capture_large", 256)
    target.line()
    captured = Terminal(cli, "capture", target.pid)
    assert captured.end() == 0
    assert re.search(r"reading .*/25\d\.\d MiB", bare(captured.said))
    assert re.search(r"\x1b\[2K[0-9a-f]{12}  capture_large[^\r\n]*\r\n\Z", bare(captured.said)), "the bar is gone"
    target = start("capture_large", 256)
    target.line()
    recorded = Terminal(cli, "record", target.pid, "--count", 1)
    assert recorded.end() == 0
    assert re.search(r"\r\x1b\[Kfirst capture: \d+\S* MiB of 25\d\S* MiB read", bare(recorded.said))


def test_the_terminal_of_run_is_the_programs(cli: Cli) -> None:
    """It reads from it, is in its foreground, hears Ctrl-C, and nothing is printed between its lines."""
    script = "trap 'echo caught; exit 9' INT; test -t 0 && test -t 1 && test -t 2 && stty size; read word; echo got $word; sleep 60"
    terminal = Terminal(cli, "run", "--every", "20ms", "--", "sh", "-c", script)
    terminal.read_until("24 100\r\n")
    terminal.type("word\n")
    terminal.read_until("got word\r\n")
    time.sleep(0.2)
    terminal.type("\x03")
    assert terminal.end() == 9
    assert re.fullmatch(
        r"24 100\r\nword\r\ngot word\r\n\^Ccaught\r\nvcsimg: \d+ captures?[^\r]* in branch sh\.[^\r]*\r\n",
        terminal.said,
    )
