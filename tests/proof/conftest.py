"""A repository and the ways into it that a user has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vcsimg.capture import Options
from vcsimg.recording import Recorder
from vcsimg.store import Repository

Run = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Repository]:
    path = tmp_path / "history"
    Repository.init(path)
    with Repository.open(path, sync="none") as repository:
        yield repository


@pytest.fixture
def record(store: Repository, tmp_path: Path) -> Callable[..., list[str]]:
    """record(pid, count, between=…, tree=…): captures, `between()` called between them; their commits."""

    def run(pid: int, count: int = 1, between: Callable[[], object] = lambda: None, tree: bool = False) -> list[str]:
        with Recorder(store, pid, Options(scratch=tmp_path, tree=tree)) as recorder:
            commits = [recorder.capture().commit]
            for _ in range(count - 1):
                between()
                commits.append(recorder.capture().commit)
            return commits

    return run


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """command(program, …): its output; a `vcsimg` that git and it call is the one under test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("vcsimg", "git-vcsimg"):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m vcsimg "$@"\n')
        script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "DEBUGINFOD_URLS": "",
    }

    def run(*words: object, cwd: Path | None = None) -> str:
        done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, timeout=100)
        assert done.returncode == 0, f"{words}: {done.stdout.decode(errors='replace')} {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="replace")

    return run
