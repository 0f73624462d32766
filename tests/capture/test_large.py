"""Many threads, many processes, much memory, and kernels that have less."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.capture.comparison import assert_same
from tests.capture.memory_store import MemoryStore
from tests.capture.test_engines import capture, start
from tests.conftest import Target
from vcsimg.capture import Options, Session

__all__ = ["start"]

Start = Callable[..., Target]

_SIZES = [512, 4096] if "VCSIMG_SOAK" in os.environ else [512]
_BOUND = 256
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_FEATURES = ["pagemap_scan", "uffd_wp_async", "process_vm", "pagemap_scan,uffd_wp_async,process_vm"]


@pytest.mark.parametrize("engine", ["wp", "cow", "compare"])
def test_a_thousand_threads(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("proc_threads", 1000)
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        for _ in range(2):
            process = store.load(capture(session, store)).processes[0]
            assert len({thread.tid for thread in process.threads}) == 1000
            assert_same(process, truths[target.pid])


@pytest.mark.parametrize("engine", ["auto", "cow", "compare"])
def test_a_tree_of_21_processes(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("proc_tree", 2, 4)
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine, tree=True), store.load) as session:
        for _ in range(2):
            processes = store.load(capture(session, store)).processes
            assert len(processes) == 21
            for process in processes:
                assert_same(process, truths[process.pid])


@pytest.mark.parametrize("mebibytes", _SIZES)
def test_memory_of_vcsimg_is_bounded(mebibytes: int, start: Start, tmp_path: Path) -> None:
    """256 MiB, and what was written since the capture before, however large the process is."""
    target = start("capture_large", mebibytes)
    assert target.line() == "ready"
    repository = tmp_path / "history"
    subprocess.run([sys.executable, "-m", "vcsimg", "init", repository], check=True, stdout=subprocess.DEVNULL)
    for _ in range(2):
        command = [sys.executable, "-m", "vcsimg", "--repo", str(repository), "capture", str(target.pid)]
        # A child's largest size counts from before its exec, so a small program starts it.
        told = subprocess.run([sys.executable, "-c", _MEASURE, *command], check=True, stdout=subprocess.PIPE)
        assert int(told.stdout) >> 10 < _BOUND


@pytest.mark.parametrize("missing", _FEATURES)
def test_image_is_exact_on_a_kernel_that_has_less(
    missing: str, start: Start, tmp_path: Path, truths: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCSIMG_DISABLE", missing)
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session:
        for seed in range(1, 6):
            target.send(f"{seed} 150\n")
            assert target.line() == "done"
            with session.capture() as snapshot:
                session.stored(commit := store.commit(snapshot))
            assert_same(store.load(commit).processes[0], truths[target.pid])
            assert "wp" not in snapshot.facts.engine or missing == "process_vm"
