"""The child that consolidates packs beside a recording."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import wait_for
from vcsimg.kernel import autogroup, procfs
from vcsimg.store import Repository
from vcsimg.store.helper import Helper


def test_whoever_else_runs_comes_first(repo: Repository) -> None:
    """It has a session of its own, so its own nice value would count among nobody."""
    others = procfs.descendants(os.getpid())
    helper = Helper(repo.path, sync=False)
    try:
        (pid,) = set(procfs.descendants(os.getpid())) - set(others)
        wait_for(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 10)
        if not Path("/proc/self/autogroup").exists():
            pytest.skip("a kernel without autogroups")
        wait_for(lambda: autogroup.of(pid) is not None and autogroup.of(pid) != autogroup.of(os.getpid()))
        wait_for(lambda: (autogroup.of(pid) or (b"", 0))[1] == 10)
    finally:
        helper.close()
