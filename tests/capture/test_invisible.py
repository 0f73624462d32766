"""A program that is captured over and over sees nothing of it. In CI a few captures each; `make soak` makes a thousand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target
from vcsimg.capture import Options, Session
from vcsimg.errors import StopTimeout
from vcsimg.image.snapshot import Snapshot

Start = Callable[..., Target]

MODES = [
    "epoll", "poll", "nanosleep", "sigtimedwait", "semop", "futex", "recv", "waitpid", "sigchld", "timers", "vfork", "threads",
    "memory", "self", "seccomp", "uffd", "work",
]  # fmt: skip
CAPTURES = 1000 if os.environ.get("VCSIMG_SOAK") else 12


def no_store(_: str) -> Snapshot:
    raise AssertionError("nothing is loaded here")


def capture(session: Session, number: int) -> None:
    with session.capture() as snapshot:
        for process in snapshot.processes:
            assert process.changes is not None
            for _ in process.changes:
                pass
        session.stored(f"capture {number}")


@pytest.mark.timeout(3600 if CAPTURES > 100 else 120)
@pytest.mark.parametrize("engine", ["wp", "cow", "compare"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_seen(mode: str, engine: str, start: Start, tmp_path: Path) -> None:
    target = start("capture_invisible", mode)
    assert target.line() == "ready"
    made = 0
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), no_store) as session:
        for number in range(CAPTURES):
            try:
                capture(session, number)
                made += 1
            except StopTimeout:
                assert mode == "vfork"
    assert made > CAPTURES // 2
    target.send("\n")
    said = target.line()
    assert said.startswith("ok "), said
    assert int(said.split()[1]) > 0
    assert target.process.wait(10) == 0


@pytest.mark.parametrize("engine", ["wp", "cow", "compare"])
def test_a_static_program_is_captured(engine: str, start: Start, tmp_path: Path) -> None:
    target = start("capture_invisible", "self", flags=("-static",))
    assert target.line() == "ready"
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), no_store) as session:
        for number in range(CAPTURES):
            capture(session, number)
    target.send("\n")
    assert target.line().startswith("ok ")
