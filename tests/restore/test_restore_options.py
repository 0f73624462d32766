"""The options of `vcsimg restore`, and captures of what was restored."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import compile_target
from tests.restore.reviving import capture, revive
from vcsimg.capture import Options
from vcsimg.recording import Recorder

PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.parametrize("name", ["tree", "threads", "terminals", "signals", "ipc"])
def test_restored_captured_and_restored_again(name: str, tmp_path: Path) -> None:
    """The processes keep the ids that they know, though vcsimg sees others."""
    command = [sys.executable, PROGRAMS / "tree.py"] if name == "tree" else [compile_target(f"restore_{name}")]
    captured = capture(command, tmp_path)
    captured.kill()
    commit = captured.commit
    for _ in range(2):
        revived = revive(captured.repository, commit)
        with Recorder(captured.repository, revived.restored.pid, Options(scratch=tmp_path, tree=True)) as recorder:
            commit = recorder.capture().commit
        revived.close()
    assert revive(captured.repository, commit).finish() == ("verified\n", 42)
    captured.repository.close()
