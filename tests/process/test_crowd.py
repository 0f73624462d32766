"""Threads that share a processor after a capture."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capture.memory_store import MemoryStore
from tests.conftest import Target, wait_for
from vcsimg.capture import Options, Session
from vcsimg.process import Crowd, crowd

Start = Callable[..., Target]


@pytest.fixture
def allowed_at(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Where this thread has been allowed to be."""
    places: list[set[int]] = []
    allow = os.sched_setaffinity

    def allowed(pid: int, processors: set[int]) -> None:
        allow(pid, processors)
        places.append(os.sched_getaffinity(0))

    monkeypatch.setattr(os, "sched_setaffinity", allowed)
    monkeypatch.setattr(crowd, "_LOOK", 0.2)  # programs that only compute take turns of milliseconds
    return places


@pytest.fixture
def processor() -> int:
    return max(os.sched_getaffinity(0))


@pytest.fixture
def pair(processor: int) -> Iterator[list[int]]:
    """Two processes that compute on the same processor."""
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os.sched_setaffinity(0, {processor})
            while True:
                pass
        pids.append(pid)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_somebody_computes_where_a_thread_has_to_wait(pair: list[int], processor: int, allowed_at: list[set[int]]) -> None:
    own = os.sched_getaffinity(0)
    found = Crowd(pair)
    time.sleep(0.2)
    found.disperse()
    assert allowed_at == [{processor}, own] * 4, "they cannot be moved, so it is tried in vain"
    assert os.sched_getaffinity(0) == own
    assert all(os.sched_getaffinity(pid) == {processor} for pid in pair)


def test_it_ends_when_they_no_longer_wait(
    pair: list[int], processor: int, allowed_at: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = iter((processor, processor, -1))

    def place(tid: int) -> int:
        found = next(places)
        if found < 0:
            os.kill(pair[1], signal.SIGSTOP)
            wait_for(lambda: Path(f"/proc/{pair[1]}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        return found

    monkeypatch.setattr(crowd, "_COMPUTE", 60)
    monkeypatch.setattr(crowd, "_processor", place)
    own = os.sched_getaffinity(0)
    found = Crowd(pair)
    time.sleep(0.2)
    found.disperse()
    assert allowed_at == [{processor}, own]


def test_nothing_is_done_where_nobody_waits(start: Start, allowed_at: list[set[int]]) -> None:
    found = Crowd([start("capture_dirty").pid])
    time.sleep(0.1)
    found.disperse()
    assert not allowed_at


def test_nothing_is_done_when_they_have_ended(processor: int, allowed_at: list[set[int]]) -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    found = Crowd([pid])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    found.disperse()
    Crowd([pid]).disperse()
    assert not allowed_at


def test_it_follows_each_capture_but_the_only_one(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Crowd] = []
    monkeypatch.setattr(Crowd, "disperse", lambda self: asked.append(self))
    target = start("capture_dirty")
    store = MemoryStore()
    for once, expected in ((False, 2), (True, 2)):
        with Session(target.pid, Options(scratch=tmp_path, once=once), store.load) as session:
            for _ in range(1 if once else 2):
                with session.capture() as snapshot:
                    session.stored(store.commit(snapshot))
                assert session.base is not None
        assert len(asked) == expected
