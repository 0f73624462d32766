"""The process of ours that is stopped in vain before the target."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capture.memory_store import MemoryStore
from tests.conftest import Target
from vcsimg.capture import Options, Session, rehearsal
from vcsimg.capture.rehearsal import Rehearsal
from vcsimg.kernel import procfs

Start = Callable[..., Target]


def _children() -> set[int]:
    return set(procfs.children(os.getpid()))


def test_it_runs_as_long_as_the_session(start: Start, tmp_path: Path) -> None:
    target = start("capture_dirty")
    before = _children()
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session:
        for _ in range(3):
            with session.capture() as snapshot:
                session.stored(store.commit(snapshot))
            assert len(_children() - before) == 1
    assert _children() == before


def test_captures_go_on_when_somebody_ends_it(start: Start, tmp_path: Path) -> None:
    target = start("capture_dirty")
    before = _children()
    store = MemoryStore()
    commits = []
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session:
        for _ in range(3):
            with session.capture() as snapshot:
                commits.append(store.commit(snapshot))
                session.stored(commits[-1])
            for child in _children() - before:
                os.kill(child, signal.SIGKILL)
    assert len(commits) == 3
    assert _children() == before


def test_without_such_a_program_nothing_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_COMMAND", "no-such-program")
    before = _children()
    one = Rehearsal()
    assert one.prepare()
    assert not one.prepare()
    one.play()
    one.close()
    assert _children() == before


def test_it_ends_when_its_owner_is_killed() -> None:
    script = """
        import sys, time
        from vcsimg.capture.rehearsal import Rehearsal
        one = Rehearsal()
        one.prepare()
        one.play()
        print(one._child.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
        poll = select.poll()
        poll.register(child, select.POLLIN)
        assert poll.poll(30_000)
        os.close(child)
