"""Which capture changed some bytes, and since when something holds; over a repository."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.store.store_model import BASE, Model
from vcsimg.errors import UnknownRevision
from vcsimg.history import BytesChange, Captured, PageChange, blame, diff, first_where, range_history
from vcsimg.image.snapshot import Snapshot
from vcsimg.image.units import PIECE_SIZE
from vcsimg.store import Repository

PID = 4242


class Store:
    """A repository as history sees it; counts the images that were loaded."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.loaded: list[str] = []

    def capture(self, rev: str) -> Captured:
        return self.repo.capture(rev)

    def load(self, rev: str) -> Snapshot:
        self.loaded.append(rev)
        return self.repo.load(rev)

    def memory_id(self, rev: str, pid: int, numbers: Sequence[int]) -> Hashable:
        return self.repo.memory_id(rev, pid, numbers)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Repository.init(tmp_path / "repo", sync="none") as repo:
        yield Store(repo)


def test_the_capture_that_last_changed_some_bytes(store: Store) -> None:
    model = Model()
    ids = []
    for number in range(40):
        if number in (3, 17):
            model.write(BASE + 100, bytes([number]) * 4)
        model.write(BASE + 50 * 4096, bytes([number + 1]))  # the same piece, in every capture
        model.write(BASE + (3 << 20), bytes([number + 1]))  # another piece
        ids.append(model.capture(store.repo))
    found = blame(store, ids[-1], PID, BASE + 100, 4)
    assert found == BytesChange(ids[17], BASE + 100, b"\x03" * 4, b"\x11" * 4)
    assert blame(store, ids[16], PID, BASE + 100, 4) == BytesChange(ids[3], BASE + 100, bytes(4), b"\x03" * 4)
    assert blame(store, ids[2], PID, BASE + 100, 4) == BytesChange(ids[0], BASE + 100, None, bytes(4))
    values = [change.after for change in range_history(store, ids[-1], PID, BASE + 50 * 4096, 1)]
    assert values == [bytes([number]) for number in range(40, 0, -1)]


def test_images_in_which_the_piece_is_the_same_are_not_loaded(store: Store) -> None:
    model = Model()
    model.write(BASE, b"here")
    ids = [model.capture(store.repo)]
    for number in range(30):
        model.write(BASE + PIECE_SIZE, bytes([number + 1]))
        ids.append(model.capture(store.repo))
    store.loaded.clear()
    assert blame(store, ids[-1], PID, BASE, 4) == BytesChange(ids[0], BASE, None, b"here")
    assert store.loaded == [ids[-1]]


def test_a_range_over_two_pieces(store: Store) -> None:
    model = Model()
    border = BASE + PIECE_SIZE
    ids = []
    for data in (b"aa", b"ab", b"bb"):
        model.write(border - 1, data)
        ids.append(model.capture(store.repo))
    history = [(change.capture, change.before, change.after) for change in range_history(store, ids[-1], PID, border - 1, 2)]
    assert history == [(ids[2], b"ab", b"bb"), (ids[1], b"aa", b"ab"), (ids[0], None, b"aa")]


def test_memory_that_was_never_there(store: Store) -> None:
    model = Model()
    model.write(BASE, b"x")
    tip = model.capture(store.repo)
    assert blame(store, tip, PID, 0x1000, 8) is None
    assert blame(store, tip, 77, BASE, 8) is None
    with pytest.raises(UnknownRevision):
        blame(store, "nothing", PID, BASE, 8)
    with pytest.raises(ValueError, match="length"):
        blame(store, tip, PID, BASE, 0)


def test_the_first_capture_where_a_condition_holds(store: Store) -> None:
    model = Model()
    ids = []
    for number in range(50):
        model.write(BASE + 8, number.to_bytes(2, "little"))
        ids.append(model.capture(store.repo))

    def over(limit: int) -> str | None:
        return first_where(store, ids, lambda image: int.from_bytes(image.process(PID).memory.read(BASE + 8, 2), "little") > limit)

    for limit in (0, 1, 30, 48):
        store.loaded.clear()
        assert over(limit) == ids[limit + 1]
        assert len(store.loaded) <= 6
    assert over(-1) == ids[0]
    assert over(49) is None
    assert first_where(store, [], lambda image: True) is None


def test_a_difference_of_two_captures_by_the_trees_of_the_repository(store: Store) -> None:
    model = Model()
    model.write(BASE, b"one")
    model.write(BASE + PIECE_SIZE, b"same")
    one = model.capture(store.repo)
    model.write(BASE + 1, b"XX")
    two = model.capture(store.repo)
    a, b = store.repo.load(one), store.repo.load(two)
    told = list(diff(a, b, lambda pid: store.repo.changed_pieces(one, two, pid)))
    (page,) = [change for change in told if isinstance(change, PageChange)]
    assert page.runs() == [(BASE + 1, BASE + 3)]
    assert page.bytes_of(BASE, BASE + 4) == (b"one\0", b"oXX\0")
    assert told == list(diff(a, b))
