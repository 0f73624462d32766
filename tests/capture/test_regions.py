"""Regions that are not what the last look at the map says of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.capture.comparison import assert_same
from tests.capture.memory_store import MemoryStore
from tests.conftest import Target, on_one_processor
from vcsimg.capture import Options, Session
from vcsimg.capture.target import ProcessCapture
from vcsimg.errors import ProcessChanged


def _send(target: Target, commands: str) -> None:
    for command in commands:
        target.send(f"{command}\n")
        assert target.line() == "done"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after the look"])
@pytest.mark.parametrize(
    ("engine", "commands"),
    [
        ("cow", "f.w.f.f.k.wf"),  # MADV_WIPEONFORK of a whole region
        ("auto", "n.n.f.n"),  # shared memory whose flags are not known at the stop
        ("auto", "r.r.r.r.r"),  # shared memory that is only read here, and written through another mapping
        ("auto", "t.st.t.t"),  # a deleted file whose region is cut in two
        ("auto", "t.mt.t.mt.t"),  # or moved
        ("compare", "t.mt.t.mt.t"),
    ],
)
def test_what_the_map_does_not_say(
    engine: str,
    commands: str,
    late: bool,
    start: Callable[..., Target],
    tmp_path: Path,
    truths: dict[int, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = start("capture_regions", tmp_path / "fileXXXXXX", preexec_fn=on_one_processor)
    assert target.line() == "ready"
    prepare = ProcessCapture.prepare
    waiting: list[str] = []

    def and_then(self: ProcessCapture, *arguments: Any) -> None:
        prepare(self, *arguments)
        _send(target, waiting.pop())

    if late:
        monkeypatch.setattr(ProcessCapture, "prepare", and_then)
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        for some in commands.split("."):
            if late:
                waiting.append(some)
            else:
                _send(target, some)
            with session.capture() as snapshot:
                commit = store.commit(snapshot)
                session.stored(commit)
            assert_same(store.load(commit).processes[0], truths[target.pid])


@pytest.mark.parametrize("engine", ["auto", "cow", "compare"])
@pytest.mark.parametrize("commands", ["f.p.f.p.f", "q.p.f.q.p.f", "p.qp.f.p.z.f", "q.zp.q.f"])
def test_a_mapped_file_is_written(
    commands: str, engine: str, start: Callable[..., Target], tmp_path: Path, truths: dict[int, Any]
) -> None:
    """Also where a private page was like the file, and is not like it now."""
    target = start("capture_regions", tmp_path / "fileXXXXXX", preexec_fn=on_one_processor)
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        for some in commands.split("."):
            _send(target, some)
            with session.capture() as snapshot:
                commit = store.commit(snapshot)
                session.stored(commit)
            assert_same(store.load(commit).processes[0], truths[target.pid])


def test_a_file_that_is_written_during_a_capture_is_named(
    start: Callable[..., Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = start("capture_regions", tmp_path / "fileXXXXXX")
    assert target.line() == "ready"
    prepare = ProcessCapture.prepare

    def and_then(self: ProcessCapture, *arguments: Any) -> None:
        prepare(self, *arguments)
        _send(target, "p")

    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session:
        with session.capture() as snapshot:
            session.stored(store.commit(snapshot))
        monkeypatch.setattr(ProcessCapture, "prepare", and_then)
        with session.capture() as snapshot:
            session.stored(store.commit(snapshot))
    unsaved = [record for record in snapshot.processes[0].section("unsaved") if ".kept" in record["resource"]]
    assert [record["reason"] for record in unsaved] == ["it was written while it was captured"]


@pytest.mark.parametrize("engine", ["auto", "cow", "compare"])
def test_a_deleted_file_that_is_given_up_when_the_process_runs_again(
    engine: str, start: Callable[..., Target], tmp_path: Path, truths: dict[int, Any]
) -> None:
    """Then nothing leads to it any more but what vcsimg holds; that is closed when the capture is over."""
    target = start("capture_regions", tmp_path / "fileXXXXXX", preexec_fn=on_one_processor)
    assert target.line() == "ready"
    _send(target, "t")
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        with session.capture() as snapshot:
            _send(target, "u")
            assert _deleted_files_of_ours(tmp_path) == 1
            commit = store.commit(snapshot)
            session.stored(commit)
        assert_same(store.load(commit).processes[0], truths[target.pid])
        assert _deleted_files_of_ours(tmp_path) == 0
        with session.capture() as snapshot:
            commit = store.commit(snapshot)
            session.stored(commit)
        assert_same(store.load(commit).processes[0], truths[target.pid])


def _deleted_files_of_ours(folder: Path) -> int:
    """The shadow is one, too, and has no name of its own."""
    links = (os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))
    return sum(link.startswith(f"{folder}/file") for link in links)


def test_a_file_that_is_out_of_reach_is_named(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("capture_regions", tmp_path / "fileXXXXXX")
    assert target.line() == "ready"
    (kept,) = tmp_path.glob("file*.kept")
    _send(target, "q")
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path), store.load) as session, session.capture() as snapshot:
        kept.unlink()
        target.end()
        with pytest.raises(ProcessChanged, match=r"its file .*\.kept was deleted and cannot be reached any more") as caught:
            store.commit(snapshot)
    assert caught.value.remedy == "Capture it again."
