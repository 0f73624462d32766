"""Plain git on the history of a real process: nothing is lost by it, and it reads well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target
from tests.proof.conftest import Run
from vcsimg.image.snapshot import Snapshot
from vcsimg.store import Repository
from vcsimg.symbols import variable

Start = Callable[..., Target]


@pytest.fixture
def commits(start: Start, record: Callable[..., list[str]]) -> list[str]:
    """Twelve captures; the counter is 7, 8, … 18."""
    target = start("proof_threads")
    target.line()
    return record(target.pid, 12, lambda: (target.send("x\n"), target.line()))


def counter(snapshot: Snapshot) -> int:
    value = variable(snapshot, snapshot.processes[0], "counter").value
    assert isinstance(value, int)
    return value


def assert_whole(path: Path, commits: list[str]) -> None:
    with Repository.open(path) as repository:
        assert [counter(repository.load(commit)) for commit in commits] == list(range(7, 7 + len(commits)))


def test_fsck_finds_no_fault(commits: list[str], store: Repository, command: Run) -> None:
    assert command("git", "fsck", "--full", "--strict", "--no-dangling", cwd=store.path) == ""


def test_log_patch_shows_which_pages_changed(commits: list[str], store: Repository, command: Run) -> None:
    said = command("git", "log", "-p", "-1", "--format=%h", "--textconv", cwd=store.path)
    assert ".xor" in said
    assert "page" in said
    assert "GIT binary patch" not in said


def test_diff_of_two_captures_is_text(commits: list[str], store: Repository, command: Run) -> None:
    said = command("git", "diff", commits[2], commits[9], cwd=store.path)
    assert "Binary files" not in said
    assert "memory/" in said


def test_shallow_clone_rebuilds_its_capture(commits: list[str], store: Repository, command: Run, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    command("git", "clone", "-q", "--bare", "--depth", "1", f"file://{store.path}", clone)
    with Repository.open(clone) as repository:
        assert counter(repository.load("HEAD")) == 18
        assert len(list(repository.log())) == 1


def test_aggressive_gc_loses_nothing(commits: list[str], store: Repository, command: Run) -> None:
    store.close()
    command("git", "gc", "-q", "--aggressive", "--prune=now", cwd=store.path)
    assert_whole(store.path, commits)


def test_bundle_holds_the_history(commits: list[str], store: Repository, command: Run, tmp_path: Path) -> None:
    bundle, clone = tmp_path / "history.bundle", tmp_path / "clone"
    command("git", "bundle", "create", "-q", bundle, "--all", cwd=store.path)
    command("git", "clone", "-q", "--bare", bundle, clone)
    assert_whole(clone, commits)


def test_bisect_run_finds_the_first_capture(commits: list[str], store: Repository, command: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    command("git", "clone", "-q", "--no-checkout", store.path, work)
    script = tmp_path / "is_small"
    script.write_text(
        "#!/bin/sh\n"
        f"value=$(vcsimg --repo {store.path} show --variable counter $(git rev-parse BISECT_HEAD)) || exit 125\n"
        'value=$(echo "$value" | grep -o "[0-9]*$")\n'
        'test "$value" -lt 13\n'
    )
    script.chmod(0o755)
    command("git", "bisect", "start", "--no-checkout", commits[-1], commits[0], cwd=work)
    said = command("git", "bisect", "run", script, cwd=work)
    assert f"{commits[6]} is the first bad commit" in said  # 7, 8, … : the seventh has 13
