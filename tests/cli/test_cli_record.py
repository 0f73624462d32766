"""capture, record, snap and run, on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli
from tests.conftest import Target, compile_target, wait_for

Start = Callable[..., Target]


def commits(cli: Cli, revision: str = "HEAD") -> list[str]:
    return cli.git("rev-list", revision).split()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_init_makes_a_private_bare_repository(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert cli.json("init", cwd=folder, environment={"VCSIMG_REPO": None}) == {"path": str(folder / ".vcsimg"), "created": True}
    assert cli.json("init", cwd=folder, environment={"VCSIMG_REPO": None})["created"] is False
    assert (folder / ".vcsimg").stat().st_mode & 0o777 == 0o700
    below = folder / "deep" / "down"
    below.mkdir(parents=True)
    assert cli("log", cwd=below, environment={"VCSIMG_REPO": None}).stdout == ""


def test_a_second_capture_of_a_process_continues_its_branch(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    first = cli.json("capture", target.pid)
    second = cli.json("capture", target.pid, "-m", "once more")
    assert second["branch"] == first["branch"]
    assert first["branch"].startswith(f"{Path(target.process.args[0]).name[:15]}.{target.pid}.")  # type: ignore[index]
    assert commits(cli) == [second["commit"], first["commit"]]
    assert cli.git("log", "-1", "--format=%s").strip() == "once more"
    assert 0 < second["pages_changed"] < first["pages_changed"]
    assert second["bytes_stored"] < first["bytes_stored"]
    assert second["pause_us"] > 0


def test_a_capture_is_one_line_in_a_pipe(cli: Cli, start: Start) -> None:
    target = start("/bin/cat")
    target.send("ready\n")
    target.line()
    done = cli("capture", target.pid)
    commit, branch, facts = done.stdout.strip().split("  ", 2)
    assert commits(cli) == [cli.git("rev-parse", commit).strip()]
    assert branch.startswith(f"cat.{target.pid}.")
    assert " changed, stopped " in facts
    assert done.stderr == ""


def test_what_cannot_be_saved_is_told(cli: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    done = cli("capture", target.pid, "--exclude", "[[]heap]")
    assert "[heap]: excluded" in done.stderr
    assert "[heap]: excluded" in cli("show").stdout


def test_tree_captures_every_process_of_a_pipeline(cli: Cli, start: Start) -> None:
    target = start("/bin/sh", "-c", "exec 3<&0; cat <&3 | cat >&2 & echo ready; wait", stderr=subprocess.PIPE)
    target.line()
    target.send("x")
    assert target.process.stderr is not None
    target.process.stderr.read(1)
    cli("capture", target.pid, "--tree")
    shown = cli.json("show")
    assert shown["processes"][0]["pid"] == target.pid
    assert sorted(process["name"] for process in shown["processes"]) == ["cat", "cat", "sh"]


def test_no_files_leaves_out_the_contents_of_files(cli: Cli, start: Start) -> None:
    target = start("/bin/sleep", 60)
    cli("capture", target.pid, "--no-files")
    assert "files" not in cli.git("ls-tree", "--name-only", "HEAD").split()


def test_each_engine_can_be_asked_for(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    for engine in ("wp", "cow", "compare"):
        cli("record", target.pid, "--engine", engine, "--every", "0", "--count", "2")
        made = cli.json("log", "-n", "1")[0]["engine"].split("+")
        assert engine in made


def test_record_ends_with_the_process(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 1.5)
    target.line()
    done = cli("record", target.pid, "--every", "100ms")
    made = done.stdout.splitlines()
    assert len(made) >= 2
    assert [cli.git("rev-parse", line.split()[0]).strip() for line in reversed(made)] == commits(cli)
    assert f"{target.pid} ended: {len(made)} captures, longest pause " in done.stderr


def test_record_tells_programs_what_happens(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    done = cli("record", target.pid, "--json", "--count", "3", "--every", "10ms")
    told = events(done.stdout)
    assert [event["event"] for event in told] == ["start", "capture", "capture", "capture", "end"]
    assert [event["commit"] for event in reversed(told[1:4])] == commits(cli, told[0]["branch"])
    assert (told[4]["reason"], told[4]["captures"]) == ("count", 3)
    assert told[4]["bytes_stored"] == sum(event["bytes_stored"] for event in told[1:4])
    assert done.stderr == ""


def test_captures_on_demand(cli: Cli, start: Start) -> None:
    """By vcsimg snap for a pid, by vcsimg snap for a folder, and by a signal."""
    target = start("/bin/sleep", 60, cwd=cli.folder)
    recorder = cli.start("record", target.pid, "--on-demand", "--on-signal", "USR2")
    try:
        assert recorder.stdout is not None
        recorder.stdout.readline()
        one = cli.json("snap", target.pid, "-m", "by pid")
        two = cli.json("snap", "--in", cli.folder, "-m", "by folder")
        assert cli("snap", "--in", cli.repo, status=1).stdout == ""
        recorder.stdout.readline()
        recorder.stdout.readline()
        recorder.send_signal(signal.SIGUSR2)
        recorder.stdout.readline()
        made = commits(cli)
        assert [item["pid"] for item in (*one, *two)] == [target.pid, target.pid]
        assert [two[0]["commit"], one[0]["commit"]] == made[1:3]
        assert cli.git("log", "--format=%s", "-2", "HEAD~1").splitlines() == ["by folder", "by pid"]
        assert len(made) == 4
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate()


def test_a_recorder_that_is_never_idle_still_answers(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    recorder = cli.start("record", target.pid, "--every", "0")
    try:
        assert recorder.stdout is not None
        recorder.stdout.readline()
        commit = cli.json("snap", target.pid, "-m", "now")[0]["commit"]
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate()
    assert commit in commits(cli)


def test_ctrl_z_stops_the_recorder_and_never_the_target(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    recorder = cli.start("record", target.pid, "--every", "0", process_group=0)
    try:
        assert recorder.stdout is not None
        for _ in range(8):
            recorder.stdout.readline()
            recorder.send_signal(signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(recorder.pid, os.WUNTRACED)[1])
            for tid in os.listdir(f"/proc/{target.pid}/task"):
                stat = Path(f"/proc/{target.pid}/task/{tid}/stat").read_text()
                assert stat.rpartition(")")[2].split()[0] not in "tT"
            recorder.send_signal(signal.SIGCONT)
    finally:
        recorder.send_signal(signal.SIGCONT)
        recorder.send_signal(signal.SIGTERM)
        recorder.communicate()


def test_kill_9_of_a_recorder_harms_nothing(cli: Cli, start: Start) -> None:
    target = start("demo_exchange", 60)
    target.line()
    recorder = cli.start("record", target.pid, "--every", "0")
    assert recorder.stdout is not None
    told = [recorder.stdout.readline().split()[0] for _ in range(4)]
    recorder.kill()
    recorder.communicate()
    assert target.process.poll() is None
    made = commits(cli)
    assert [cli.git("rev-parse", commit).strip() for commit in reversed(told)] == made[-4:]
    cli("capture", target.pid)
    assert commits(cli)[1:] == made
    cli.git("fsck", "--full", "--strict")


def test_run_passes_on_input_output_and_exit_status(cli: Cli) -> None:
    done = cli(
        "run",
        "--every",
        "50ms",
        "--",
        "sh",
        "-c",
        "read word; echo $word; sleep 0.5; echo bad >&2; exit 7",
        status=7,
        input="good\n",
    )
    assert done.stdout == "good\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "bad"
    assert lines[1].startswith("vcsimg: ")
    assert " in branch sh." in lines[1]
    assert len(lines) == 2
    assert len(commits(cli)) == int(lines[1].split()[1])


def test_run_ends_by_the_signal_that_ended_the_program(cli: Cli) -> None:
    assert "in branch sh." in cli("run", "--", "sh", "-c", "sleep 0.3; kill -TERM $$", status=-signal.SIGTERM).stderr


def test_run_passes_on_signals(cli: Cli) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('ready', flush=True); signal.pause()"
    )
    runner = cli.start("run", "--every", "100ms", "python3", "-c", program)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "ready\n"
    runner.send_signal(signal.SIGTERM)
    _, err = runner.communicate()
    assert runner.returncode == 5, err


def test_run_of_nothing_is_what_a_shell_says(cli: Cli) -> None:
    assert cli("run", "--", "no-such-command-here", status=127).stderr == "vcsimg: no-such-command-here: command not found\n"
    assert "Permission denied" in cli("run", "--", "/etc/passwd", status=126).stderr


def test_a_program_that_cannot_be_recorded_runs_all_the_same(cli: Cli) -> None:
    (cli.repo / "vcsimg" / "recorders").write_text("")  # in the place of the folder that a recorder needs
    done = cli("run", "--", "sh", "-c", "sleep 0.2; echo done; exit 3", status=3)
    assert done.stdout == "done\n"
    assert done.stderr.startswith("vcsimg: 0 captures")


def test_run_tells_programs_what_happens_in_a_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "events"
    cli("run", "--quiet", "--every", "50ms", "--events", path, "--", compile_target("demo_exchange"), 0.6, status=0)
    told = events(path.read_text())
    assert [told[0]["event"], told[-1]["event"]] == ["start", "end"]
    assert told[-1]["captures"] == len(told) - 2 == len(commits(cli)) > 0
    assert told[-1]["exit_status"] == 0


def test_the_source_revision_is_noted(cli: Cli, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    cli("run", "--", "sleep", "0.5", cwd=checkout)
    assert cli.json("log", "-n", "1")[0]["source_commit"] == revision


def test_the_hook_asks_for_a_capture_at_each_commit_of_the_source(cli: Cli, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    hook = checkout / ".git" / "hooks" / "post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes((Path(__file__).parent.parent.parent / "hooks" / "post-commit").read_bytes())
    hook.chmod(0o755)

    def commit(subject: str) -> str:
        command = [*git, "commit", "--allow-empty", "-q", "-m", subject]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=cli.environment())
        return done.stdout + done.stderr

    assert commit("nothing runs") == ""
    runner = cli.start("run", "--on-demand", "--", "sleep", "60", cwd=checkout)
    try:
        wait_for(lambda: bool(cli.git("branch").strip()))
        assert commit("a better sleep") == ""
    finally:
        child = int(Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()[0])
        os.kill(child, signal.SIGKILL)
        runner.communicate()
    assert cli.git("log", "-1", "--format=%s").strip().endswith(": a better sleep")
    assert len(commits(cli)) == 2


def test_an_ordinary_user_records_their_own_process(cli_of_nobody: Cli) -> None:
    cli = cli_of_nobody
    cli("run", "--every", "100ms", "--", compile_target("demo_exchange"), 1)
    made = cli.json("log")
    assert len(made) >= 3
    assert {item["engine"] for item in made[:-1]} != {None}
    cli("checkout", "HEAD~1", "--core", cli.folder / "core")
    assert (cli.folder / "core").stat().st_uid == 65534
    assert "pages" in cli("diff", "--stat").stdout
    cli.git("fsck", "--full", "--strict")
