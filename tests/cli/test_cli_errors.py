"""Bad input ends with one clear message, what to do about it, and an exit status; never with a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Cli
from tests.conftest import Target, wait_for

Start = Callable[..., Target]
UNUSED_PID = (1 << 22) + 1
"""Above the largest pid that Linux allows."""


def test_help_names_every_command(cli: Cli) -> None:
    said = cli("--help").stdout
    for command in ("init", "run", "record", "snap", "capture", "log", "show", "diff", "checkout", "doctor", "textconv", "version"):
        assert f"\n  {command} " in said
    assert cli("diff", "-h").stdout.startswith("Usage: vcsimg diff [OPTIONS] [A] [B]\n")


@pytest.mark.parametrize(
    "arguments", [("nix",), ("capture", "x"), ("record", "1", "--every", "soon"), ("diff", "--stat", "--hex"), ("snap",)]
)
def test_wrong_usage_is_status_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert "Usage: vcsimg" in cli(*arguments, status=2).stderr


def test_no_repository_names_the_ways_to_one(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = cli("log", status=1, cwd=folder, environment={"VCSIMG_REPO": None})
    assert done.stderr.startswith(f"vcsimg: {folder}: no vcsimg repository here\n  ")
    assert "vcsimg init" in done.stderr
    assert "VCSIMG_REPO" in done.stderr


def test_the_current_folder_may_be_gone(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    words = ["sh", "-c", command, "sh", str(folder), *cli.command("log")]
    done = subprocess.run(words, capture_output=True, text=True, env=cli.environment(VCSIMG_REPO=None), check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "vcsimg: the current folder, which was deleted: no vcsimg repository here",
    )


def test_no_such_process(cli: Cli) -> None:
    for command in ("capture", "record"):
        said = cli(command, UNUSED_PID, status=1).stderr
        assert said.startswith(f"vcsimg: process {UNUSED_PID}: no such process\n  ")
    assert cli("log").stdout == ""


def test_a_zombie_is_named(cli: Cli) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert "zombie" in cli("capture", pid, status=1).stderr
    finally:
        os.waitpid(pid, 0)


def test_a_thread_is_not_a_process(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    tid = next(int(name) for name in os.listdir(f"/proc/{target.pid}/task") if int(name) != target.pid)
    said = cli("capture", tid, status=1).stderr
    assert f"process {tid}: it is a thread of process {target.pid}\n  Use {target.pid}" in said


def test_a_process_of_another_user(cli_of_nobody: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    said = cli_of_nobody("capture", target.pid, status=1).stderr
    assert f"process {target.pid}: not permitted: it belongs to user 0 and you are user 65534" in said


def test_a_traced_process_names_its_tracer(cli: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    gdb = subprocess.Popen(
        ["gdb", "-q", "-nx", "-p", str(target.pid)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: f"TracerPid:\t{gdb.pid}" in Path(f"/proc/{target.pid}/status").read_text())
        assert f"already traced by process {gdb.pid}" in cli("capture", target.pid, status=1).stderr
    finally:
        gdb.communicate(b"detach\nquit\n")


def test_an_unknown_revision(cli: Cli, start: Start) -> None:
    cli("capture", start("/bin/sleep", 60).pid)
    for command in ("show", "diff", "checkout", "log"):
        assert "unknown revision 'nix'" in cli(command, "nix", status=1).stderr


def test_a_repository_without_captures_says_so(cli: Cli) -> None:
    for command in (("show",), ("diff",), ("checkout", "HEAD")):
        assert "no captures yet" in cli(*command, status=1).stderr


def test_two_recorders_of_one_process_exclude_one_another(cli: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    recorder = cli.start("record", target.pid, "--on-demand")
    try:
        assert recorder.stdout is not None
        recorder.stdout.readline()
        said = cli("capture", target.pid, status=1).stderr
        assert f"process {recorder.pid} is already writing branch sleep.{target.pid}." in said
        assert "vcsimg snap" in said
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate()


def test_snap_without_a_recorder(cli: Cli) -> None:
    assert f"no recorder follows process {UNUSED_PID}" in cli("snap", UNUSED_PID, status=1).stderr


def test_places_of_another_user_are_passed_by(cli_of_nobody: Cli, tmp_path: Path) -> None:
    """A HOME that may not be read, and a repository further up that is not ours."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / ".gitconfig").write_text("")
    environment = {"HOME": str(home), "VCSIMG_REPO": None}
    cli_of_nobody("init", "other", environment={"HOME": str(home)})
    foreign = cli_of_nobody.folder / ".vcsimg"
    foreign.mkdir(mode=0o700)
    try:
        assert "no vcsimg repository here" in cli_of_nobody("log", status=1, environment=environment).stderr
    finally:
        foreign.rmdir()


def test_a_repository_in_a_checkout_of_source_is_never_added_to_it(cli: Cli, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "source"], check=True)
    cli("init", cwd=tmp_path / "source", environment={"VCSIMG_REPO": None})
    status = ["git", "-C", str(tmp_path / "source"), "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, check=True, capture_output=True, text=True).stdout == ""


def test_a_read_only_repository(cli_of_nobody: Cli) -> None:
    target = subprocess.Popen([*cli_of_nobody.prefix, "sleep", "60"])
    try:
        for path in (cli_of_nobody.repo, *cli_of_nobody.repo.rglob("*")):
            if path.is_dir():
                path.chmod(0o500)
        done = cli_of_nobody("capture", target.pid, status=1)
        assert done.stderr.startswith(f"vcsimg: {cli_of_nobody.repo}: the repository cannot be written\n")
        assert target.poll() is None
    finally:
        for path in (cli_of_nobody.repo, *cli_of_nobody.repo.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        target.kill()
        target.wait()


def test_a_fault_of_vcsimg_is_one_line_and_its_traceback_comes_when_asked_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vcsimg.store\ndef broken(*arguments, **options): raise ZeroDivisionError('as planned')\n"
        "vcsimg.store.Repository.discover = broken\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent.parent.parent}"}
    said = cli("log", status=1, environment=environment).stderr.splitlines()
    assert said[0] == "vcsimg: unexpected ZeroDivisionError: as planned"
    assert "VCSIMG_DEBUG=1 vcsimg log" in said[1]
    assert len(said) == 2
    done = subprocess.run(
        cli.command("log"), capture_output=True, text=True, env=cli.environment(**environment, VCSIMG_DEBUG="1"), check=False
    )
    assert done.stderr.startswith("Traceback")


def test_a_reader_that_has_enough_ends_it_quietly(cli: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    cli("capture", target.pid)
    done = subprocess.run(
        f"{' '.join(cli.command('show', '--json'))} | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        env=cli.environment(),
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_an_output_that_is_full_is_told(cli: Cli) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            cli.command("version"), stdout=full, stderr=subprocess.PIPE, text=True, env=cli.environment(), check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_recording_and_leaves_the_target_running(cli: Cli, start: Start, number: int) -> None:
    target = start("demo_exchange", 60)
    target.line()
    recorder = cli.start("record", target.pid, "--every", "0")
    assert recorder.stdout is not None
    for _ in range(3):
        recorder.stdout.readline()
    recorder.send_signal(number)
    out, err = recorder.communicate()
    assert recorder.returncode == 128 + number, err
    assert "stopped: " in err
    commits = cli.git("rev-list", "HEAD").split()
    assert len(commits) == 3 + len(out.splitlines())
    cli.git("fsck", "--full", "--strict")
    assert "TracerPid:\t0" in Path(f"/proc/{target.pid}/status").read_text()
    assert target.process.poll() is None


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_class_is_made_on_import(number: int) -> None:
    """Python turns what its handler raises into a RuntimeError there."""
    code = f"""
import functools, os, sys
def interrupted(self, owner, name):
    if owner.__module__.startswith("vcsimg"):
        os.kill(os.getpid(), {int(number)})
functools.cached_property.__set_name__ = interrupted
from vcsimg.cli.main import main
sys.argv = ["vcsimg", "doctor"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_interrupted_captures_leave_target_and_repository_whole(cli: Cli, start: Start) -> None:
    """Ctrl-C at sixteen moments between the start of the command and its end."""
    target = start("demo_exchange", 60)
    target.line()
    for step in range(16):
        capture = cli.start("capture", target.pid)
        # Python's own start takes a while; what happens there is not ours.
        wait_for(partial(catches, capture.pid, signal.SIGTERM))
        try:
            capture.wait(0.03 * step)
        except subprocess.TimeoutExpired:
            capture.send_signal(signal.SIGINT)
        _, err = capture.communicate()
        assert capture.returncode in (0, 130), err
        # What an interrupted capture knew of waiting threads is lost, and the next one says so.
        assert all(line.startswith("not saved: ") for line in err.split("\n") if line), err
    assert "TracerPid:\t0" in Path(f"/proc/{target.pid}/status").read_text()
    threads = [Path(f"/proc/{target.pid}/task/{tid}/stat").read_text() for tid in os.listdir(f"/proc/{target.pid}/task")]
    assert not any(text.rpartition(")")[2].split()[0] in "Tt" for text in threads)
    cli("capture", target.pid)
    cli.git("fsck", "--full", "--strict")


def test_the_engines_that_can_be_asked_for_are_those_there_are() -> None:
    """The command line has a list of its own, to start quickly."""
    from vcsimg.capture import target
    from vcsimg.cli import record

    assert record.ENGINES == target.ENGINES


def test_every_command_has_its_section_in_the_documentation() -> None:
    from vcsimg.cli.commands import vcsimg

    text = (Path(__file__).parent.parent.parent / "docs" / "commands.md").read_text()
    for command in vcsimg.list_commands(click.Context(vcsimg)):
        assert f"\n## vcsimg {command}" in text


def test_a_repository_of_source_is_never_written_to(cli: Cli, start: Start, tmp_path: Path) -> None:
    """Not even if it is named: its HEAD would move to a branch of captures, and `prune` would thin its history."""
    source = tmp_path / "source"
    subprocess.run(["git", "init", "-q", source], check=True)
    commit = ["git", "-C", source, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "one"]
    subprocess.run(commit, check=True)
    target = start("/usr/bin/sleep", "60")
    for words in (("capture", target.pid), ("prune", "--keep-last", "1"), ("gc",), ("log",)):
        assert "not one of vcsimg" in cli(*words, "--repo", source, status=1).stderr
    assert subprocess.run(["git", "-C", source, "branch"], check=True, capture_output=True, text=True).stdout.count("\n") == 1


def test_a_bare_repository_that_was_pushed_to_is_one(cli: Cli, start: Start, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "copy"], check=True)
    cli("capture", start("/usr/bin/sleep", "60").pid)
    cli("push", "--yes", tmp_path / "copy")
    assert cli("log", "--all", "--repo", tmp_path / "copy").stdout == cli("log", "--all").stdout


def test_what_is_no_plain_file_is_never_replaced(cli: Cli, start: Start, tmp_path: Path) -> None:
    cli("capture", start("/usr/bin/sleep", "60").pid)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for words in (("checkout", "HEAD", "--force", "--core", pipe), ("bundle", "--force", pipe)):
        assert "not a plain file" in cli(*words, status=1).stderr
        assert pipe.is_fifo()


def test_a_reader_that_has_enough_is_no_failure(cli: Cli, start: Start) -> None:
    """The status is that of SIGPIPE: 1 would say that `search` has found nothing."""
    cli("capture", start("/usr/bin/sleep", "60").pid)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        done = subprocess.run(cli.command("search", "a"), stdout=out, stderr=subprocess.PIPE, env=cli.environment(), check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_prune_takes_no_span_of_nothing(cli: Cli, start: Start) -> None:
    cli("capture", start("/usr/bin/sleep", "60").pid)
    assert "time span" in cli("prune", "--keep-every", "0", "--keep-last", "3", status=2).stderr


def test_events_that_cannot_be_written_end_nothing(cli: Cli, start: Start) -> None:
    done = cli("run", "--every", "50ms", "--events", "/dev/full", "--", "sh", "-c", "sleep 0.4; exit 5", status=5)
    assert "vcsimg: /dev/full: No space left on device\n" in done.stderr
    done = cli("record", "--every", "50ms", "--count", "3", "--events", "/dev/full", start("/usr/bin/sleep", "60").pid)
    assert done.stdout.count(" stored, engine ") == 3
    assert "no events: /dev/full: No space left on device\n" in done.stderr
    assert "exclude" in cli("record", "--json", "--events", "/dev/full", 1, status=2).stderr


def test_another_key_does_not_take_the_place_of_the_key(cli: Cli, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    repo = ("--repo", tmp_path / "sealed")
    cli("init", *repo, "--key-file", tmp_path / "key")
    cli("capture", *repo, start("/usr/bin/sleep", "60").pid)
    (tmp_path / "other").write_text("5" * 128)
    assert "not in" in cli("init", *repo, "--key-file", tmp_path / "new", status=1).stderr
    assert not (tmp_path / "new").exists()
    assert "another key" in cli("init", *repo, "--key-file", tmp_path / "other", status=1).stderr
    cli("show", *repo)
    (tmp_path / "copy").write_text((tmp_path / "key").read_text())
    cli("init", *repo, "--key-file", tmp_path / "copy")
    cli("show", *repo)


@pytest.mark.parametrize("limit", [8, 1024])
def test_a_limit_of_the_size_of_files(cli: Cli, start: Start, limit: int) -> None:
    """Of the shadow, and of a pack: what was committed is whole, and without the limit recording goes on. Blocks of 512 bytes."""
    target = start("capture_dirty")
    target.line()
    cli("init", cli.repo)
    cli("capture", target.pid)
    target.send("5 2000\n")
    target.line()
    words = ["sh", "-c", f'ulimit -f {limit} && exec "$@"', "sh", *cli.command("capture", target.pid)]
    done = subprocess.run(words, capture_output=True, text=True, env=cli.environment(), check=False)
    assert done.returncode == 1
    message, remedy = done.stderr.splitlines()
    assert message == f"vcsimg: {cli.repo}: a file must not become as large as it would" or message.startswith(
        f"vcsimg: {cli.repo}/"
    )
    assert remedy.startswith("  Raise the limit of the shell (ulimit -f)")
    cli("capture", target.pid)
    assert cli("fsck").stdout.startswith("2 captures")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(cli: Cli, start: Start, closed: str) -> None:
    """Files of the repository are not taken for them."""
    target = start("proc_sleep")
    cli("init", cli.repo)
    for command in (("capture", target.pid), ("show",), ("log",), ("gc",)):
        words = ["sh", "-c", f'exec "$@" {closed}', "sh", *cli.command(*command)]
        done = subprocess.run(words, capture_output=True, text=True, env=cli.environment(), check=False)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
    assert cli("fsck").stdout.startswith("1 capture")
