"""A process that is killed while it is captured: the capture fails with one sentence, nothing is left behind, and others go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Target
from tests.process.helpers import KilledBefore, held_by_us
from vcsimg.capture import Options
from vcsimg.errors import ProcessError
from vcsimg.recording import Recorder
from vcsimg.store import Repository

Start = Callable[..., Target]


@pytest.mark.parametrize("engine", ["wp", "cow", "compare"])
def test_killed_before_a_request(engine: str, start: Start, tmp_path: Path) -> None:
    """One step in eleven of two captures; those of a stop alone are tried one by one in tests/process and tests/memory."""
    repository = Repository.init(tmp_path / "repository", sync="none")
    captured, step = False, 1
    while not captured:
        target = start("capture_dirty")
        assert target.line() == "ready"
        killed = KilledBefore(target.pid, step)
        options = Options(scratch=repository.path / "vcsimg", engine=engine)
        with Recorder(repository, target.pid, options) as recorder, killed, suppress(ProcessError):
            for _ in range(2):
                recorder.capture()
            captured = not killed.reached
        target.end()
        assert held_by_us() == []
        step += 11
    repository.close()
    assert step > 100
