"""First captures that are stored while the process runs, into a real repository."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capture.comparison import assert_same, read_everything
from tests.conftest import Target, on_one_processor
from vcsimg.capture import Options
from vcsimg.capture.behind import WriteBehind
from vcsimg.capture.session import Session
from vcsimg.capture.shadow import Shadow
from vcsimg.errors import DiskFull, ProcessError
from vcsimg.image.pages import PieceChange
from vcsimg.memory import Room
from vcsimg.recording import Recorder
from vcsimg.store import Draft, Repository
from vcsimg.store.packseries import PackSeries

Start = Callable[..., Target]


@pytest.fixture(autouse=True)
def _drafts_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small processes, into several packs each."""
    monkeypatch.setattr("vcsimg.capture.target._DRAFT_LEAST", 0)
    monkeypatch.setattr("vcsimg.store.packseries._LEAST", 1 << 10)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "repository", sync="none") as made:
        yield made


@pytest.fixture
def target(start: Start) -> Target:
    target = start("capture_dirty", preexec_fn=on_one_processor)
    assert target.line() == "ready"
    target.send("5 200\n")
    assert target.line() == "done"
    return target


def recorder(repository: Repository, target: Target, **options: bool) -> Recorder:
    return Recorder(repository, target.pid, Options(scratch=repository.path / "vcsimg", **options))  # type: ignore[arg-type]


def packs(repository: Repository) -> list[str]:
    """Files where git looks for packs, and where they are made."""
    ours = repository.path / "vcsimg"
    return [file.name for file in (*(repository.path / "objects/pack").iterdir(), *ours.rglob("*.tmp"))]


def before_each(monkeypatch: pytest.MonkeyPatch, doing: Callable[[int], None]) -> None:
    """Do something just before each piece of a draft is stored; it gets the number of those before."""
    add = Draft.add

    def patched(self: Draft, pid: int, regions: object, changes: Iterator[PieceChange]) -> None:
        def watched() -> Iterator[PieceChange]:
            for count, change in enumerate(changes):
                doing(count)
                yield change

        add(self, pid, regions, watched())  # type: ignore[arg-type]

    monkeypatch.setattr(Draft, "add", patched)


@pytest.mark.parametrize("once", [False, True])
def test_the_capture_is_what_the_process_has_when_it_is_stopped(
    repository: Repository, target: Target, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    """It changes between the pieces of its draft, and maps and unmaps regions."""

    def change(count: int) -> None:
        target.send(f"{count} 20\n")
        assert target.line() == "done"

    before_each(monkeypatch, change)
    with recorder(repository, target, once=once) as made:
        first = made.capture()
        target.send("99 1\n")
        assert target.line() == "done"
        second = made.capture()
        target.stop()
        last = made.capture()
    assert first.engine == "wp"
    with Path(f"/proc/{target.pid}/mem").open("rb", buffering=0) as memory:
        assert_same(repository.load(last.commit).processes[0], read_everything(target.pid, memory.fileno()))
    assert [capture.id for capture in repository.log()] == [last.commit, second.commit, first.commit]
    own = sum(
        end - start
        for region in repository.load(first.commit).processes[0].regions
        for start, end in repository.load(first.commit).processes[0].memory.own_pages(region)  # type: ignore[union-attr]
    )
    assert first.pages_changed == own >> 12 > second.pages_changed
    assert repository.fsck().findings == []


def test_a_first_capture_that_is_interrupted_leaves_nothing(
    repository: Repository, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = PackSeries.add_entry

    def interrupt(series: PackSeries, *entry: object) -> None:
        add(series, *entry)  # type: ignore[arg-type]
        if packs(repository):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(PackSeries, "add_entry", interrupt)
        with pytest.raises(KeyboardInterrupt), recorder(repository, target) as made:
            made.capture()
    assert packs(repository) == []
    assert list(repository.log()) == []
    assert not any(thread.name.startswith("vcsimg-shadow") for thread in threading.enumerate())
    with recorder(repository, target) as made:
        assert made.capture().engine == "wp"


def test_without_room_for_a_copy_beside_the_repository_there_is_no_draft(
    repository: Repository, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Shadow.write, []

    def full(self: Shadow, number: int, *rest: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            written.append(number)
            if len(written) > 3:
                raise DiskFull("scratch")
        write(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Shadow, "write", full)
    with recorder(repository, target, once=True) as made:
        capture = made.capture()
    assert len(written) > 3
    assert capture.pages_changed
    target.stop()
    with Path(f"/proc/{target.pid}/mem").open("rb", buffering=0) as memory:
        before = read_everything(target.pid, memory.fileno())
    with recorder(repository, target) as made:
        assert_same(repository.load(made.capture().commit).processes[0], before)
    assert repository.fsck().findings == []


def test_a_process_that_ends_while_its_draft_is_stored(
    repository: Repository, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_each(monkeypatch, lambda count: os.kill(target.pid, signal.SIGKILL) if count == 2 else None)
    with pytest.raises(ProcessError), recorder(repository, target) as made:
        made.capture()
    assert packs(repository) == []


def test_a_child_that_ends_while_its_draft_is_stored(
    repository: Repository, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(40):
        target.send(f"{seed} 150\n")  # forks children, and ends some
        assert target.line() == "done"
    children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
    victim = int(children[0])
    add = Draft.add

    def patched(self: Draft, pid: int, regions: object, changes: Iterator[PieceChange]) -> None:
        if pid == victim:
            os.kill(pid, signal.SIGKILL)
        add(self, pid, regions, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(Draft, "add", patched)
    with recorder(repository, target, tree=True) as made:
        commit = made.capture().commit
    assert victim not in {process.pid for process in repository.load(commit).processes}
    assert repository.fsck().findings == []


def test_what_is_written_behind_is_there_at_the_end(tmp_path: Path, target: Target) -> None:
    """Also when more was given than may wait."""
    with Session(target.pid, Options(scratch=tmp_path), lambda _: pytest.fail("there is no capture to load")) as session:
        parts = {part.pid: {change.number: change for change in part.changes} for part in session.draft()}
    shadow = Shadow(tmp_path, Room())
    with WriteBehind(shadow) as behind:
        for change in parts[target.pid].values():
            behind.write(change)
    assert set(shadow.numbers()) == parts[target.pid].keys()
    for number, change in parts[target.pid].items():
        assert (shadow.read(number, change.pages) == change.new).all()
    shadow.close()
