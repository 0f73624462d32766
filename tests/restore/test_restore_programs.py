"""Programs that verify themselves: captured alive, killed, restored, as whoever runs the tests and as an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import compile_target, home_of_nobody
from tests.restore.reviving import capture, capture_and_revive, revive
from vcsimg.capture import Options
from vcsimg.errors import HostileImage, RestoreError
from vcsimg.kernel import procfs
from vcsimg.recording import Recorder
from vcsimg.restore import restore

PROGRAMS = ("plain", "threads", "signals", "files", "events", "memory")
ROOT = Path(__file__).parent.parent.parent


def program(name: str) -> Path:
    return compile_target(f"restore_{name}")


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "events" or os.getuid() == 0])
def test_program_finds_everything_as_it_was(name: str, tmp_path: Path) -> None:
    assert capture_and_revive([program(name)], tmp_path) == ("verified\n", 42)


# Not events: without privilege the kernel does not tell what an inotify descriptor watches.
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "events"])
def test_as_an_ordinary_user(name: str, tmp_path: Path, as_nobody: list[str]) -> None:
    done = as_user(as_nobody, tmp_path, [program(name)])
    assert (done.stdout, done.returncode) == ("verified\n\n42\n", 0), done.stderr


def as_user(prefix: list[str], folder: Path, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """capture_and_revive() as another user, in a folder that is theirs."""
    home = home_of_nobody(folder)
    words = [*prefix, sys.executable, "-m", "tests.restore.reviving", home, *command]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)


def test_static_program(tmp_path: Path) -> None:
    assert capture_and_revive([compile_target("restore_plain", "-static")], tmp_path) == ("verified\n", 42)


def test_two_at_once_beside_the_first(tmp_path: Path) -> None:
    captured = capture([program("threads")], tmp_path)
    try:
        copies = [revive(captured.repository, captured.commit) for _ in range(2)]
        assert [copy.finish() for copy in copies] == [("verified\n", 42)] * 2
        captured.process.communicate(b"go\n")
        assert captured.process.returncode == 42
    finally:
        captured.kill()


def test_registers_of_a_running_loop(tmp_path: Path) -> None:
    signal = tmp_path / "go"
    captured = capture([program("plain"), "spin", signal], tmp_path)
    captured.kill()
    revived = revive(captured.repository, captured.commit)
    signal.touch()
    assert revived.finish() == ("verified\n", 42)


@pytest.mark.parametrize("name", ["sockets", "tree", "interpreter"])
def test_script_finds_everything_as_it_was(name: str, tmp_path: Path) -> None:
    script = Path(__file__).parent / "programs" / f"{name}.py"
    assert capture_and_revive([sys.executable, script], tmp_path) == ("verified\n", 42)


def test_tree_as_an_ordinary_user(tmp_path: Path, as_nobody: list[str]) -> None:
    script = Path(__file__).parent / "programs" / "tree.py"
    interpreter = Path("/usr/bin/python3")  # ours may lie where only we may go
    if not interpreter.exists():
        pytest.skip("no interpreter for everybody")
    done = as_user(as_nobody, tmp_path, [interpreter, script])
    assert done.stdout == "verified\n\n42\n", done.stderr


def test_captures_of_a_restored_process_continue_its_history(tmp_path: Path) -> None:
    captured = capture([program("plain")], tmp_path)
    captured.kill()
    revived = revive(captured.repository, captured.commit)
    with Recorder(captured.repository, revived.restored.pid, Options(scratch=tmp_path)) as recorder:
        recorded = recorder.capture()
    assert recorded.branch == revived.branch
    assert captured.repository.capture(recorded.commit).parents == (captured.commit,)
    assert revived.finish() == ("verified\n", 42)


def test_poke_changes_what_it_goes_on_with(tmp_path: Path) -> None:
    captured = capture([program("plain")], tmp_path)
    captured.kill()
    process = captured.repository.load(captured.commit).processes[0]
    heap = next(process.regions.named("[heap]"))
    assert process.memory is not None
    at = heap.start + process.memory.read(heap.start, heap.end - heap.start).index(b"\0" * 64)
    revived = revive(captured.repository, captured.commit, pokes={at: b"poked"})
    try:
        with open(f"/proc/{revived.restored.pid}/mem", "rb", buffering=0) as memory:
            assert os.pread(memory.fileno(), 5, at) == b"poked"
    finally:
        revived.close()


def test_an_instruction_pointer_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    captured = capture([program("plain")], tmp_path)
    captured.kill()
    snapshot = captured.repository.load(captured.commit)
    process = snapshot.processes[0]
    thread = replace(process.threads[0], registers={**process.threads[0].registers, "rip": 4096})
    with pytest.raises(HostileImage, match="instruction pointer"):
        restore(replace(snapshot, processes=(replace(process, threads=(thread,)),)))


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    captured = capture([program("files")], tmp_path)
    captured.kill()
    (tmp_path / "folder" / "file").unlink()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RestoreError, match="folder/file"):
        revive(captured.repository, captured.commit)
    assert not procfs.children(os.getpid())
    assert set(os.listdir("/proc/self/fd")) <= before
