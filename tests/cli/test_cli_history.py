"""blame and search, on captures of a program whose variables change as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Target, compile_target


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Five captures of a shell: its variable WORD is new in the second, and another from the fourth on."""
    cli = Cli(tmp_path_factory.mktemp("history"))
    cli("init", cli.repo)
    target = Target("/bin/sh", "-c", 'echo ready; while read WORD; do echo "$WORD"; done')
    try:
        target.line()
        cli("capture", target.pid, "--no-files")
        for word in ("needle-one-in-the-heap", "", "needle-two-in-the-heap", ""):
            if word:
                target.send(word + "\n")
                assert target.line() == word
            cli("capture", target.pid, "--no-files")
    finally:
        target.end()
    return cli


def ids(cli: Cli) -> list[str]:
    return cli.git("rev-list", "--reverse", "HEAD").split()


def test_search_finds_bytes_and_since_when(history: Cli) -> None:
    commits = ids(history)
    told = history.json("search", "needle-two-in-the-heap")
    assert told["commit"] == commits[-1]
    assert told["places"]
    assert history.json("search", "--hex", b"needle-two-in-the-heap".hex(" "))["places"] == told["places"]
    lines = history("search", "-n", "1", "needle-two-in-the-heap").stdout.splitlines()
    assert lines[1].split()[1] == f"{told['places'][0]['address']:x}"
    assert len(lines) == 2
    first = history("search", "--first", "needle-two-in-the-heap").stdout.splitlines()[0]
    assert first == f"first in capture {commits[3][:12]}"
    assert history("search", "needle-two-in-the-heap", commits[2], status=1).stdout == ""
    assert history("search", "", status=2).stdout == ""
    assert "hexadecimal" in history("search", "--hex", "xyz", status=2).stderr


def test_blame_names_the_captures_that_changed_bytes(history: Cli) -> None:
    commits = ids(history)
    one = {place["address"] for place in history.json("search", "needle-one-in-the-heap", commits[1])["places"]}
    two = {place["address"] for place in history.json("search", "needle-two-in-the-heap")["places"]}
    address = min(one & two)  # the shell's buffer for input
    place = f"{address:#x}+22"
    told = history.json("blame", place)
    assert told == {
        "address": address,
        "length": 22,
        "changes": [{"commit": commits[3], "before": b"needle-one-in-the-heap".hex(), "after": b"needle-two-in-the-heap".hex()}],
    }
    assert [change["commit"] for change in history.json("blame", "--all", place)["changes"]][:2] == [commits[3], commits[1]]
    assert history.json("blame", place, commits[2])["changes"][0]["commit"] == commits[1]
    word = history("blame", f"{address + 7:#x}+4").stdout  # "one-" became "two-"
    assert word.startswith(f"{commits[3][:12]}  ")
    assert "  0x2d656e6f → 0x2d6f7774  " in word


def test_blame_of_what_was_never_there(history: Cli) -> None:
    assert "has nothing at 0x10 " in history("blame", "0x10", status=1).stderr
    assert "is not ADDRESS" in history("blame", "here", status=2).stderr
    assert "Give either" in history("blame", status=2).stderr


def test_blame_of_a_variable(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    target = Target(compile_target("demo_exchange"), "60")
    try:
        target.line()
        cli("record", target.pid, "--every", "100ms", "--count", "3")
    finally:
        target.end()
    told = cli.json("blame", "--variable", "market.trades", "--all")
    values = [cli.json("show", commit, "--variable", "market.trades")["value"] for commit in ids(cli)]
    assert int.from_bytes(bytes.fromhex(told["changes"][0]["after"]), "little") == values[-1]
    assert told["length"] == 8
    assert cli.json("blame", "--variable", "market.trades", "HEAD~1")["changes"] == told["changes"][1:2]
    assert "Give either" in cli("blame", "0x1000", "--variable", "market.trades", status=2).stderr
    assert "One REVISION" in cli("blame", "--variable", "market.trades", "HEAD", "HEAD~1", status=2).stderr
