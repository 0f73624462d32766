"""Each engine's image equals a full read of the process at the same instant."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.capture.comparison import assert_same
from tests.capture.memory_store import MemoryStore
from tests.conftest import Target, on_one_processor
from vcsimg.capture import Options, Session
from vcsimg.capture import target as target_module
from vcsimg.capture.early import EarlyLook
from vcsimg.capture.harvest import Harvest
from vcsimg.errors import DiskFull

ENGINES = ["wp", "wp early", "wp hot", "wp draft", "cow", "compare", "auto"]
"""wp early: looks for what was written aside, and copies all of it while the process runs; wp draft: has all of it stored while the process
runs; both as it otherwise does for large processes only. wp hot: leaves unprotected whatever was written once."""

Start = Callable[..., Target]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine in turn."""
    name, _, way = str(request.param).partition(" ")
    if way == "draft":
        monkeypatch.setattr(target_module, "_DRAFT_LEAST", 0)
    elif way == "hot":
        monkeypatch.setattr("vcsimg.capture.hot._MOSTLY", 1)
        monkeypatch.setattr("vcsimg.capture.hot._TIMES", 1)
    elif way == "early":
        assert EarlyLook.possible()
        monkeypatch.setattr(target_module, "_MUCH", 0)
        monkeypatch.setattr(target_module, "_PRECOPY_LEAST", 1 << 16)
        monkeypatch.setattr(target_module, "_STOP_SECONDS", -1.0)
        monkeypatch.setattr("vcsimg.capture.early._SHARE", 1 << 20)
        monkeypatch.setattr("vcsimg.capture.early._others", lambda: 3)
        monkeypatch.setattr("vcsimg.capture.protection._STEP", 1 << 20)
    return name


@pytest.fixture
def start(start: Start) -> Start:
    """Targets that stay on one processor, with their children."""
    return partial(start, preexec_fn=on_one_processor)


def capture(session: Session, store: MemoryStore) -> str:
    for part in session.draft():
        store.draft(part.pid, part.changes)
    with session.capture() as snapshot:
        commit = store.commit(snapshot)
        session.stored(commit)
    return commit


def assert_captures_same(count: int, target: Target, options: Options, truths: dict[int, Any]) -> None:
    """So many captures of a target that runs, each the same as the process was."""
    store = MemoryStore()
    with Session(target.pid, options, store.load) as session:
        for _ in range(count):
            assert_same(store.load(capture(session, store)).processes[0], truths[target.pid])


def test_image_equals_the_process_after_random_changes(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        seeds = random.Random(1)
        for _ in range(25):
            target.send(f"{seeds.randrange(1 << 60)} {seeds.choice([0, 1, 20, 200])}\n")
            assert target.line() == "done"
            assert_same(store.load(capture(session, store)).processes[0], truths[target.pid])


def test_a_page_of_a_file_that_is_dropped_and_not_written_yet(
    engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]
) -> None:
    """The kernel gives such a page its protection back before it lets the program write."""
    target = start("capture_dropped")
    assert target.line() == "ready"
    assert_captures_same(40, target, Options(scratch=tmp_path, engine=engine), truths)


def test_image_equals_the_process_while_it_runs(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    target.send("77 -1\n")
    assert_captures_same(25, target, Options(scratch=tmp_path, engine=engine), truths)


def test_first_images_equal_the_process_while_it_runs(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    target.send("78 -1\n")
    for _ in range(5):
        store = MemoryStore()
        with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
            assert_same(store.load(capture(session, store)).processes[0], truths[target.pid])


def test_capture_after_a_lost_one_is_relative_to_the_last_stored(
    engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]
) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        capture(session, store)
        for lost in (0, 1, 5):
            target.send("3 100\n")
            assert target.line() == "done"
            with session.capture() as snapshot:
                changes = snapshot.processes[0].changes
                assert changes is not None
                for _, _ in zip(changes, range(lost), strict=False):
                    pass
            target.send("4 10\n")
            assert target.line() == "done"
            assert_same(store.load(capture(session, store)).processes[0], truths[target.pid])


def test_a_second_session_joins_the_first_one(engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    base = None
    for _ in range(4):
        target.send("9 150\n")
        assert target.line() == "done"
        with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load, base) as session:
            base = capture(session, store)
            assert_same(store.load(base).processes[0], truths[target.pid])


@pytest.mark.parametrize("engine", ["wp", "cow"], indirect=True)
@pytest.mark.parametrize("trouble", ["once", "disk full"])
def test_capture_after_one_for_which_nothing_was_made_ready(
    trouble: str, engine: str, start: Start, tmp_path: Path, truths: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared with what is stored. What is stored is not lost when what comes after fails."""
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine, once=trouble == "once"), store.load) as session:
        for _ in range(3):
            target.send("5 150\n")
            assert target.line() == "done"
            with monkeypatch.context() as patch:
                if trouble == "disk full":
                    patch.setattr(Harvest, "settle", _no_room)
                assert_same(store.load(capture(session, store)).processes[0], truths[target.pid])


def _no_room(_: Harvest) -> None:
    raise DiskFull("scratch")


def test_a_capture_of_a_sleeping_process_has_no_changes(engine: str, start: Start, tmp_path: Path) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        capture(session, store)
        capture(session, store)
        with session.capture() as snapshot:
            store.commit(snapshot)
        assert store.pages_changed == 0


def test_a_tree_is_captured_at_one_instant(start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_dirty")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, tree=True), store.load) as session:
        for _ in range(6):
            target.send("12 150\n")  # forks children, and ends some
            assert target.line() == "done"
            image = store.load(capture(session, store))
            assert image.processes[0].pid == target.pid
            assert {process.pid for process in image.processes} <= truths.keys()
            for process in image.processes:
                assert_same(process, truths[process.pid])
        assert len(image.processes) > 1


def test_a_child_in_the_place_of_another_with_the_same_pid(
    engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]
) -> None:
    """What only the first one had at the same addresses is gone."""
    target = start("capture_same_pid")
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine, tree=True), store.load) as session:
        for step in (1, 7, 3):
            target.send(f"{step}\n")
            word, rest = target.line().split(maxsplit=1)
            if word == "refused":
                pytest.skip(f"choosing a pid takes CAP_CHECKPOINT_RESTORE: {rest}")
            child = int(rest)
            processes = store.load(capture(session, store)).processes
            assert [process.pid for process in processes] == [target.pid, child]
            assert_same(processes[1], truths[child])
