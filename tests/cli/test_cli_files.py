"""Contents of open files, from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Target

Start = Callable[..., Target]

WRITER = (
    'import sys\nfile = open("log", "a+")\nfile.write("captured\\n"); file.flush()\nprint("ready", flush=True)\n'
    'sys.stdin.readline()\nfile.write("after\\n"); file.flush()\n'
)


@pytest.fixture
def writer(start: Start, tmp_path: Path) -> Target:
    """A program that has a file open: `log` in tmp_path."""
    target = start(sys.executable, "-c", WRITER, cwd=tmp_path)
    assert target.line() == "ready"
    return target


def test_lost_work_is_written_out(cli: Cli, writer: Target, tmp_path: Path) -> None:
    cli("capture", writer.pid)
    writer.end()
    (tmp_path / "log").unlink()
    done = cli.json("checkout", "HEAD", "--files", tmp_path / "out")
    assert done["written"] == [str(tmp_path / "out")]
    assert (tmp_path / "out" / str(tmp_path)[1:] / "log").read_text() == "captured\n"
    assert "files" in cli("show").stdout
    assert "content of" in cli("show").stdout


def test_what_was_there_is_kept_by_a_rollback(cli: Cli, writer: Target, tmp_path: Path) -> None:
    cli("capture", writer.pid)
    writer.end()
    (tmp_path / "log").write_text("other\n")
    # The other ends of its standard input and output are not in the capture; neither is what the shell that runs the tests has left open.
    done = cli("restore", "--files", "rollback", "--outside", "close", "HEAD", input="go\n")
    assert "brought back; what was there is kept in " in done.stderr
    assert (tmp_path / "log").read_text() == "captured\nafter\n"
    (kept,) = (path for path in tmp_path.iterdir() if path.name.startswith("log.before-rollback."))
    assert kept.read_text() == "other\n"


def test_how_much_is_kept(cli: Cli, writer: Target) -> None:
    cli("capture", writer.pid, "--file-content", "8")
    assert "it has 9 bytes, and up to 8 are kept (--file-content)" in cli("show", f"HEAD:proc/{writer.pid}/contents").stdout
    cli("capture", writer.pid, "--file-content", "1K")
    assert "(--file-content)" not in cli("show", f"HEAD:proc/{writer.pid}/contents").stdout
    cli("capture", writer.pid, "--file-content", "0")
    assert "contents" not in cli("show", f"HEAD:proc/{writer.pid}").stdout.split()


@pytest.mark.parametrize("text", ["many", "-1", "1X", ""])
def test_an_amount_that_is_none_is_refused(text: str, cli: Cli) -> None:
    assert "is not an amount of bytes" in cli("capture", "1", f"--file-content={text}", status=2).stderr
