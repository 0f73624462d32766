"""log, show, diff, checkout, textconv, doctor: looking at captures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Target, compile_target

Start = Callable[..., Target]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A repository with four captures of a program that has ended."""
    cli = Cli(tmp_path_factory.mktemp("history"))
    cli("init", cli.repo)
    target = Target(compile_target("demo_exchange"), "60")
    try:
        target.line()
        cli("record", target.pid, "--every", "150ms", "--count", "3")
        cli("capture", target.pid, "-m", "the last one")
    finally:
        target.end()
    return cli


def test_log_lists_captures_newest_first(history: Cli) -> None:
    lines = history("log").stdout.splitlines()
    commits = history.git("rev-list", "HEAD").split()
    assert [line.split()[0] for line in lines] == [commit[:12] for commit in commits]
    branch = history.git("symbolic-ref", "--short", "HEAD").strip()
    assert lines[0].endswith(f"  the last one  ({branch})")
    assert re.fullmatch(
        r"[0-9a-f]{12}  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  [a-z+]+ +[\d.]+ (µs|ms|s) +\d+  .*: \d+ pages? in \d+ regions?", lines[1]
    )
    assert history("log", "-n", "2").stdout.splitlines() == lines[:2]
    assert history("log", "HEAD~2").stdout.splitlines() == lines[2:]
    assert history("log", "--all", branch, status=2).stdout == ""
    assert history("log", branch).stdout.splitlines() == lines


def test_log_for_programs(history: Cli) -> None:
    told = history.json("log")
    assert [item["commit"] for item in told] == history.git("rev-list", "HEAD").split()
    assert [item["parents"] for item in told] == [[item["commit"]] for item in told[1:]] + [[]]
    assert told[0]["subject"] == "the last one"
    assert all(item["pause_us"] > 0 and item["pages_changed"] > 0 for item in told)
    assert {item["kernel"] for item in told} == {os.uname().release}


def test_show_says_what_a_capture_holds(history: Cli) -> None:
    shown = history("show", "HEAD").stdout
    assert "the last one\n" in shown
    assert re.search(r"^  threads +5: \d+ demo_exchange-\w*, \d+ trader-1, \d+ trader-2, \d+ trader-3, \d+ matcher$", shown, re.M)
    assert re.search(r"^ +1 +\d+ KiB +rw-p +\[heap\]$", shown, re.M)
    told = history.json("show", "HEAD")
    assert [thread["name"] for thread in told["processes"][0]["threads"]][1:] == ["trader-1", "trader-2", "trader-3", "matcher"]
    assert told["processes"][0]["threads"][0]["registers"]["rip"].startswith("0x")
    assert "status" in told["processes"][0]["sections"]


def test_show_gives_files_of_the_tree_as_they_are(history: Cli) -> None:
    assert history("show", "HEAD:format").stdout == "vcsimg 4\n"
    assert set(history("show", "HEAD:").stdout.split()) >= {"format", "host", "tree", "proc/", "files/"}
    assert "has no 'nix'" in history("show", "HEAD:nix", status=1).stderr


def test_show_gives_the_value_of_a_variable(history: Cli) -> None:
    pytest.importorskip("drgn")
    old, new = (history.json("show", revision, "--variable", "market.trades") for revision in ("HEAD~3", "HEAD"))
    assert 0 < old["value"] < new["value"]
    assert history("show", "HEAD", "--variable", "market.trades").stdout == f"market.trades = (long){new['value']}\n"
    assert "\\x09" not in history("show", "HEAD", "--variable", "market").stdout  # members are indented, by blanks
    assert "no variable nix" in history("show", "HEAD", "--variable", "nix", status=1).stderr
    assert "has no process 1" in history("show", "HEAD", "--variable", "market", "--process", 1, status=1).stderr


def test_diff_of_one_capture_is_what_it_changed(history: Cli) -> None:
    one, two = history.git("rev-list", "-2", "HEAD").split()
    said = history("diff").stdout
    assert said == history("diff", one).stdout == history("diff", two, one).stdout == history("diff", f"{two}..{one}").stdout
    assert re.search(r"^\d+ page [0-9a-f]+ .*demo_exchange.*: \d+ bytes?$", said, re.M)
    first = history.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert "the first of its history" in history("diff", first, status=1).stderr


def test_diff_counts_and_bytes(history: Cli) -> None:
    stat = history("diff", "HEAD~3", "HEAD", "--stat").stdout.splitlines()
    assert re.fullmatch(r"\d+ regions?, \d+ pages?, \d+ bytes?, \d+ threads?, \d+ records? changed", stat[-1])
    counted = history.json("diff", "HEAD~3", "HEAD", "--stat")
    assert counted["totals"]["pages"] == sum(region["pages"] for region in counted["regions"]) > 0
    told = history.json("diff", "HEAD~3", "HEAD")
    pages = [change for change in told["changes"] if change["type"] == "page"]
    assert len(pages) == counted["totals"]["pages"]
    assert (told["from"], told["to"]) == (counted["from"], counted["to"])
    shown = history("diff", "HEAD~3", "HEAD", "--hex").stdout
    assert len(re.findall(r"^- [0-9a-f]+  ", shown, re.M)) == len(re.findall(r"^\+ [0-9a-f]+  ", shown, re.M)) > 0


def test_checkout_writes_a_core_that_gdb_opens(history: Cli, tmp_path: Path) -> None:
    values = []
    program = compile_target("demo_exchange")
    for revision in ("HEAD~3", "HEAD"):
        done = history("checkout", revision, "--force", cwd=tmp_path)
        (core,) = tmp_path.glob("*.core")
        assert re.fullmatch(r"demo_exchange-[\w.]*\.\d+\.core", core.name)
        assert done.stdout.startswith(f"{core.name}  ")
        command = ["gdb", "-nx", "-batch", "-ex", "print market.trades", "-ex", "info threads", str(program), str(core)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert len(re.findall(r"^[* ] +\d+ +Thread", said, re.M)) == 5
        values.append(int(re.search(r"^\$1 = (\d+)$", said, re.M)[1]))  # type: ignore[index]
    assert values[0] < values[1]


def test_checkout_does_not_replace_a_file_unless_forced(history: Cli, tmp_path: Path) -> None:
    core = tmp_path / "core"
    core.write_text("mine")
    assert f"{core}: the file exists" in history("checkout", "HEAD", "--core", core, status=1).stderr
    assert core.read_text() == "mine"
    told = history.json("checkout", "HEAD", "--core", core, "--force")
    assert told["written"] == [str(core)]
    assert core.read_bytes()[:4] == b"\x7fELF"
    assert list(tmp_path.iterdir()) == [core]


def test_checkout_to_a_pipe_and_to_plain_files(history: Cli, tmp_path: Path) -> None:
    piped = subprocess.run(
        history.command("checkout", "HEAD", "--core", "-"), capture_output=True, check=True, env=history.environment()
    )
    history("checkout", "HEAD", "--core", tmp_path / "core", "--raw", tmp_path / "raw")
    assert piped.stdout == (tmp_path / "core").read_bytes()
    (process,) = [path for path in (tmp_path / "raw").iterdir() if path.name.isdigit()]
    assert (process / "map").read_text() == "".join(
        history("show", f"HEAD:proc/{process.name}/map/{name}").stdout
        for name in history("show", f"HEAD:proc/{process.name}/map").stdout.split()
    )


def test_checkout_of_a_tree(cli: Cli, start: Start, tmp_path: Path) -> None:
    target = start("/bin/sh", "-c", "exec 3<&0; cat <&3 & wait")
    target.send("ready\n")
    target.line()
    cli("capture", target.pid, "--tree")
    folder = tmp_path / "cores"
    folder.mkdir()
    said = cli("checkout", "HEAD", "--core", folder / "one", status=1).stderr
    assert "has 2 processes, and --core writes one" in said
    cli("checkout", "HEAD", "--core", folder / "one", "--process", target.pid)
    cli("checkout", "HEAD", cwd=folder)
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["cat", "one", "sh"]


def test_git_commands_and_the_diff_driver(history: Cli) -> None:
    """git log -p shows memory by textconv, and `git vcsimg` is vcsimg."""
    assert re.search(r"^[-+]delta of the piece at 0x[0-9a-f]+: \d+ pages?", history.git("log", "-p", "-1"), re.M)
    assert history.git("vcsimg", "log") == history("log").stdout
    blob = history.git("ls-tree", "-r", "--name-only", "HEAD").split()
    name = next(path for path in blob if ".key" in path)
    (history.folder / "blob").write_bytes(
        subprocess.run(["git", "-C", str(history.repo), "show", f"HEAD:{name}"], check=True, capture_output=True).stdout
    )
    assert history("textconv", "blob").stdout.startswith("keyframe of the piece at 0x")
    assert "not" in history("textconv", "bin/vcsimg", status=1).stderr


def test_fsck_names_damage_and_saves_the_rest(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    for _ in range(2):
        cli("capture", target.pid)
    assert cli("fsck").stdout == "2 captures checked, 0 damaged, 0 findings\n"
    name = next(path for path in cli.git("diff", "--name-only", "HEAD~1", "HEAD").split() if path.endswith(".xor"))
    git = ["git", "-C", str(cli.repo), "cat-file", "blob", f"HEAD:{name}"]
    blob = subprocess.run(git, check=True, capture_output=True).stdout
    for pack in (cli.repo / "objects" / "pack").glob("*.pack"):
        content = pack.read_bytes()
        if blob in content:
            pack.chmod(0o600)
            pack.write_bytes(content.replace(blob, blob[:-1] + bytes([blob[-1] ^ 1])))
    told = json.loads(cli("fsck", "--json", "--salvage", cli.folder / "saved", status=1).stdout)
    assert told["damaged"] == cli.git("rev-parse", "HEAD").split()
    assert told["findings"]
    assert told["salvaged"] == 1
    assert len(cli.json("log", "--all", "--repo", cli.folder / "saved")) == 1


def test_version_and_doctor_speak_to_programs(cli: Cli) -> None:
    assert cli("--version").stdout == f"vcsimg {cli.json('version')['vcsimg']}\n"
    checks = {check["name"]: check for check in cli.json("doctor")}
    assert checks["capture"]["result"] == "ok"
    assert checks["repository"]["text"] == str(cli.repo)
    assert cli("doctor").stdout.splitlines()[0].startswith("ok")


def test_doctor_tells_what_is_missing(cli: Cli) -> None:
    checks = {check["name"]: check for check in cli.json("doctor", environment={"VCSIMG_DISABLE": "pagemap_scan"})}
    assert checks["pagemap_scan"]["result"] == checks["uffd_wp_async"]["result"] == "less"
    assert checks["engines"]["text"] == "cow, compare"
    assert "VCSIMG_DISABLE" in checks["pagemap_scan"]["remedy"]


def test_names_cannot_speak_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    """A mapped file whose name would clear the screen."""
    real = tmp_path / "real\x1b[2J"
    real.write_bytes(Path("/bin/sleep").read_bytes())
    real.chmod(0o755)
    target = subprocess.Popen([real, "60"])
    try:
        cli("capture", target.pid, "-m", "title \x1b]0;gotcha\x07")
        for command in (("log",), ("show",), ("checkout", "HEAD")):
            said = cli(*command)
            assert "\x1b" not in said.stdout + said.stderr
        assert json.loads(cli("show", "--json").stdout)["subject"] == "title \x1b]0;gotcha\x07"
    finally:
        target.kill()
        target.wait()


def test_show_says_that_base_classes_are_missing(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    source = tmp_path / "derived.cc"
    source.write_text(
        '#include <stdio.h>\n#include <unistd.h>\nstruct A { int x; }; struct D : A { int y = 8; } d;\nint main() { puts(""); fflush(stdout); pause(); }'
    )
    subprocess.run(["c++", "-g", "-o", tmp_path / "derived", source], check=True)
    target = Target(tmp_path / "derived")
    try:
        target.line()
        cli("capture", target.pid)
    finally:
        target.end()
    assert "note: not shown: the members of base classes of D\n" in cli("show", "--variable", "d").stdout
    assert cli.json("show", "--variable", "d")["without_bases"] == ["D"]
    assert "note" not in cli("show", "--variable", "d.y").stdout


_LOADS_A_COMMAND = """
import os, sys
from vcsimg.cli.commands import vcsimg
vcsimg.main(["show", "--help"], standalone_mode=False)
assert "numpy" in sys.modules
print("threads", len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="numpy makes no threads for one processor")
@pytest.mark.parametrize("before", [None, "2"])
def test_a_command_makes_no_threads_for_numpy(cli: Cli, before: str | None) -> None:
    """They would take 0.1 s of a processor in vain; what the user says of them is handed on to what is run."""
    environment = cli.environment(OPENBLAS_NUM_THREADS=before)
    done = subprocess.run([sys.executable, "-c", _LOADS_A_COMMAND], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == f"threads 1 {before}"
