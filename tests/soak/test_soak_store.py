"""Two hundred rounds of kill -9 in one repository, while it is recorded to, consolidated, packed and pruned. Only with `make soak`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STORE_TESTS = Path(__file__).parent.parent / "store"
sys.path.insert(0, str(STORE_TESTS))

from recorder import expected  # noqa: E402
from store_model import BASE, Model  # noqa: E402

from vcsimg.store import Repository  # noqa: E402

pytestmark = pytest.mark.skipif(not os.environ.get("VCSIMG_SOAK"), reason="takes minutes: make soak")

ROUNDS = int(os.environ.get("VCSIMG_SOAK_ROUNDS", "200"))
KEPT = 5
STEPS = {expected(step): step for step in range(400)}
History = dict[str, dict[int, str]]
"""Branch → number of the capture → its id."""


def command(path: Path, *arguments: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "vcsimg", "--repo", str(path), *arguments]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str], seconds: float) -> None:
    """kill -9 after some time, unless it has ended: then it must have been no failure."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    else:
        assert process.returncode == 0, errors


def record(path: Path, seed: int, rng: random.Random, meanwhile: str | None) -> dict[int, str]:
    """What a recorder acknowledged until it was killed. `meanwhile`: a command that is killed too, while it records."""
    recorder = subprocess.Popen([sys.executable, STORE_TESTS / "recorder.py", path, str(seed)], stdout=subprocess.PIPE, text=True)
    assert recorder.stdout is not None
    lines = [recorder.stdout.readline() for _ in range(rng.randrange(1, 60))]
    if meanwhile is not None:
        other = command(path, meanwhile)
        lines += [recorder.stdout.readline() for _ in range(rng.randrange(1, 20))]
        kill(other, rng.random())
    time.sleep(rng.random() * 0.02)
    recorder.send_signal(signal.SIGKILL)
    lines += recorder.stdout.readlines()
    recorder.wait()
    recorder.stdout.close()
    return {int(line.split()[1]): line.split()[0] for line in lines if line.endswith("\n")}


def content(repo: Repository, commit: str) -> int:
    """The number of the capture that a commit holds, by its memory."""
    memory = repo.load(commit).processes[0].memory
    assert memory is not None
    return STEPS[memory.read(BASE, 4096)]


def read(path: Path) -> History:
    with Repository.open(path) as repo:
        return {
            branch.name: {content(repo, capture.id): capture.id for capture in repo.log(branch.name)} for branch in repo.branches()
        }


def check_pruned(before: History, after: History) -> None:
    """A pruning that was killed has done nothing or all: of each branch, the newest are there, and nothing that was not."""
    for branch, captures in before.items():
        last = max(after[branch])  # perhaps one that was made and not acknowledged
        assert last >= max(captures)
        assert set(sorted({*captures, last})[-KEPT:]) <= set(after[branch])
        assert set(after[branch]) - {last} <= set(captures)


def test_kill_at_any_moment(tmp_path: Path) -> None:
    path = Repository.init(tmp_path / "repo").path
    rng = random.Random(11)
    history: History = {}
    for number in range(ROUNDS):
        kind = rng.choice(("record", "record", "record and gc", "prune", "gc"))
        if kind.startswith("record"):
            history[f"model.{number}"] = record(path, number, rng, "gc" if kind.endswith("gc") else None)
        elif kind == "gc":
            kill(command(path, "gc"), rng.random() * 1.5)
        elif history:
            process = command(path, "prune", "--keep-last", str(KEPT))
            kill(process, 0.1 + rng.random() * 1.5)
            after = read(path)
            check_pruned(history, after)
            history = after
        if number % 10 == 9:
            git_fsck(path)
    with Repository.open(path) as repo:
        for captures in history.values():
            for step, commit in captures.items():
                assert content(repo, commit) == step
        Model(pid=1).capture(repo, branch="last")
        assert repo.fsck().clean
    git_fsck(path)
    # The helper of the last recorder may have outlived it by the merge that it was at.
    for _ in range(1000):
        left = [*path.glob("vcsimg/*.tmp"), *path.glob("objects/pack/*.keep"), *path.glob("vcsimg/owner-*")]
        if not left:
            break
        time.sleep(0.01)
    assert left == []


def git_fsck(path: Path) -> None:
    """Clean, as soon as what the killed ones have started has ended: packs must not be exchanged under git's fsck."""
    for _ in range(20):
        done = subprocess.run(["git", "-C", path, "fsck", "--full", "--strict"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError(done.stdout + done.stderr)
