"""An empty repository for each test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vcsimg.store import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "repo", sync="none") as made:
        yield made


@pytest.fixture
def git(repo: Repository) -> Callable[..., str]:
    """git("fsck", "--full") runs git in the repository, fails when it fails, and returns what it prints."""

    def run(*arguments: object) -> str:
        done = subprocess.run(["git", "-C", repo.path, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run
