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
from vcsimg.capture import target as capture_target
from vcsimg.capture.harvest import Harvest
from vcsimg.capture.pages import PageNumbers
from vcsimg.capture.rehearsal import Rehearsal
from vcsimg.capture.state import StateReader
from vcsimg.kernel import procfs
from vcsimg.memory import Memory

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


def test_nothing_is_rehearsed_where_much_is_written_meanwhile(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_target, "_ROUND_LEAST", 4 << 20)
    target = start("capture_hot")
    assert target.line() == "ready"

    def write(pages: int) -> None:
        target.send(f"{pages}\n")
        target.line()

    played: list[str] = []
    monkeypatch.setattr(Rehearsal, "play", lambda self: played.append("stop"))
    monkeypatch.setattr(StateReader, "rehearse", lambda self: played.append("read"))
    meanwhile = 0
    secure = Harvest.secure

    def copy(harvest: Harvest, memory: Memory, numbers: PageNumbers) -> None:
        nonlocal meanwhile
        secure(harvest, memory, numbers)
        if meanwhile:
            write(meanwhile)
            meanwhile = 0

    monkeypatch.setattr(Harvest, "secure", copy)
    store = MemoryStore()
    found = []
    with Session(target.pid, Options(scratch=tmp_path, engine="wp"), store.load) as session:
        for pages in (0, 0, 512, 0):
            write(2048)
            meanwhile = pages
            played.clear()
            with session.capture() as snapshot:
                session.stored(store.commit(snapshot))
            found.append(sorted(set(played)))
    assert found == [["read", "stop"], ["read", "stop"], [], ["read", "stop"]]


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
