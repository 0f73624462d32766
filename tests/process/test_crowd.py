"""Threads that share a processor while a capture is made."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capture.memory_store import MemoryStore
from tests.conftest import Target, wait_for
from vcsimg.capture import Options, Session
from vcsimg.capture import session as capture_session
from vcsimg.process import Crowd

Start = Callable[..., Target]


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


@pytest.fixture
def own() -> Iterator[set[int]]:
    """Where this thread may be, also after the test."""
    allowed = os.sched_getaffinity(0)
    yield allowed
    os.sched_setaffinity(0, allowed)


def test_this_thread_goes_where_one_waits_and_comes_back(pair: list[int], processor: int, own: set[int]) -> None:
    with Crowd(pair) as crowd:
        wait_for(lambda: crowd.waiting() in pair)
        crowd.join()
        assert os.sched_getaffinity(0) == {processor}
    assert os.sched_getaffinity(0) == own
    assert all(os.sched_getaffinity(pid) == {processor} for pid in pair), "theirs is not touched"


def test_it_does_not_go_where_it_may_not(pair: list[int], processor: int, own: set[int]) -> None:
    if len(own) == 1:
        pytest.skip("there is one processor")
    os.sched_setaffinity(0, own - {processor})
    with Crowd(pair) as crowd:
        wait_for(lambda: crowd.waiting() in pair)
        crowd.join()
        assert os.sched_getaffinity(0) == own - {processor}
    assert os.sched_getaffinity(0) == own - {processor}


def test_nobody_waits_who_sleeps(start: Start, own: set[int]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    crowd = Crowd([target.pid])
    time.sleep(0.05)
    assert crowd.waiting() is None
    crowd.join()
    assert os.sched_getaffinity(0) == own


def test_nobody_waits_who_has_ended(own: set[int]) -> None:
    child = subprocess.Popen(["sleep", "60"])
    crowd = Crowd([child.pid])
    child.kill()
    child.wait()
    time.sleep(0.05)
    assert crowd.waiting() is None
    crowd.join()
    assert Crowd([child.pid]).waiting() is None
    assert os.sched_getaffinity(0) == own


def test_many_threads_are_not_looked_at(pair: list[int]) -> None:
    crowd, many = Crowd(pair), Crowd(pair * 9)
    wait_for(lambda: crowd.waiting() is not None)
    assert many.waiting() is None


@pytest.mark.parametrize("fails", [False, True], ids=["stored", "fails"])
def test_the_end_of_a_capture_is_where_the_process_waits(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processor: int, own: set[int], fails: bool
) -> None:
    target = start("capture_dirty")
    os.sched_setaffinity(target.pid, {processor})
    store = MemoryStore()
    monkeypatch.setattr(Crowd, "waiting", lambda self: target.pid)
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session:
        try:
            with session.capture() as snapshot:
                assert snapshot.crowded
                assert os.sched_getaffinity(0) == own
                commit = store.commit(snapshot)
                assert os.sched_getaffinity(0) == {processor}
                if fails:
                    raise KeyError
                session.stored(commit)
        except KeyError:
            assert fails
        assert os.sched_getaffinity(0) == own
        monkeypatch.setattr(Crowd, "waiting", lambda self: None)
        with session.capture() as snapshot:
            assert not snapshot.crowded
            store.commit(snapshot)
            assert os.sched_getaffinity(0) == own


def test_what_is_much_is_stored_soon(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = start("capture_dirty")
    store = MemoryStore()
    monkeypatch.setattr(Crowd, "waiting", lambda self: target.pid)
    monkeypatch.setattr(capture_session, "_MANY", -1)
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session, session.capture() as snapshot:
        assert not snapshot.crowded
        session.stored(store.commit(snapshot))
