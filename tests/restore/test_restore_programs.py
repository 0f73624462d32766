"""Programs that verify themselves: captured alive, killed, restored, as whoever runs the tests and as an ordinary user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import compile_target, home_of_nobody
from tests.restore.batches import ROOT, USERS, Found, batches
from tests.restore.cases import WAYS
from tests.restore.reviving import capture, capture_and_revive, revive
from vcsimg.capture import Options
from vcsimg.errors import HostileImage, RestoreError
from vcsimg.kernel import procfs
from vcsimg.recording import Recorder
from vcsimg.restore import restore

PROGRAMS = ("plain", "threads", "signals", "files", "events", "memory")
SCRIPTS = ("sockets", "tree", "interpreter")
EVERYBODYS = Path("/usr/bin/python3")
"""Ours may lie where only we may go."""
TAKEN = {"sockets": "another process listens at", "files": "lock: .*Resource temporarily unavailable"}
"""What there is but once while the captured process lives."""


def program(name: str) -> Path:
    return compile_target(f"restore_{name}")


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    yield from batches(request, tmp_path_factory, command)


def command(name: str) -> list[str | Path]:
    return [program(name)] if name in PROGRAMS else [EVERYBODYS, Path(__file__).parent / "programs" / f"{name}.py"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*PROGRAMS, *SCRIPTS])
@pytest.mark.parametrize("user", USERS)
def test_program_finds_everything_as_it_was(user: str, name: str, way: str, outcome: Found) -> None:
    if name in SCRIPTS and not EVERYBODYS.exists():
        pytest.skip("no interpreter for everybody")
    found = outcome(user, name, way)
    if way == "beside" and name in TAKEN:
        assert found.kind == "refused", found
        assert re.search(TAKEN[name], found.text), found
    else:
        assert found.verified, found


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
    children = set(procfs.children(os.getpid()))
    with pytest.raises(RestoreError, match="folder/file"):
        revive(captured.repository, captured.commit)
    assert set(procfs.children(os.getpid())) <= children
    assert set(os.listdir("/proc/self/fd")) <= before
