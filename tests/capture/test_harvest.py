"""What is copied of a process in several rounds, and the shadow that it is compared with. The process is this one: pages of an array."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vcsimg.capture.harvest import Harvest
from vcsimg.capture.pages import NO_RANGES, Ranges, ranges_of, ranges_of_pages
from vcsimg.capture.shadow import Shadow
from vcsimg.errors import DiskFull
from vcsimg.image.pages import any_content
from vcsimg.image.units import PAGE_SIZE, PAGES_PER_PIECE
from vcsimg.kernel.calls import Calls, Results, call_in_a_row
from vcsimg.memory import AutoMemory, Room

PAGES = 3 * PAGES_PER_PIECE

Rows = npt.NDArray[np.uint8]


@pytest.fixture
def content() -> Rows:
    """Pages of this process, (n, 4096), that lie in three or four pieces."""
    memory = mmap.mmap(-1, PAGES * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.uint8).reshape(PAGES, PAGE_SIZE)


@pytest.fixture
def shadow(tmp_path: Path) -> Iterator[Shadow]:
    made = Shadow(tmp_path, Room())
    yield made
    made.close()


def _first(content: Rows) -> int:
    return int(content.ctypes.data) // PAGE_SIZE


def _mapped(content: Rows) -> Ranges:
    return ranges_of([(content.ctypes.data, content.ctypes.data + content.nbytes)])


def _known(shadow: Shadow, content: Rows) -> Rows:
    """What the shadow has of the pages."""
    numbers = np.arange(PAGES) + _first(content)
    rows = np.zeros_like(content)
    for piece in np.unique(numbers // PAGES_PER_PIECE).tolist():
        here = numbers // PAGES_PER_PIECE == piece
        rows[here] = shadow.read(piece, (numbers[here] % PAGES_PER_PIECE).astype(np.uint16))
    return rows


def _harvested(
    shadow: Shadow, content: Rows, rounds: list[npt.NDArray[np.intp]], write: bool, later: bool = False
) -> tuple[Rows, list[int]]:
    """The pages as one capture that copies some of them in each round, the last one `later`, brings them to what the shadow had; numbers of those that
    it names."""
    rng = np.random.default_rng(len(rounds))
    found = _known(shadow, content) if write else np.zeros_like(content)
    named = []
    harvest = Harvest(shadow, complete=True)
    with AutoMemory(os.getpid()) as memory:
        for index, pages in enumerate(rounds):
            if write:
                content[pages, int(rng.integers(0, PAGE_SIZE))] = rng.integers(0, 3, len(pages))
                content[pages[::5]] = 0
            if later and index == len(rounds) - 1:
                harvest.read_later(memory, ranges_of_pages(pages + _first(content)))
            else:
                harvest.secure(memory, pages + _first(content))
        for change in harvest.changes(lambda _, rows: any_content(rows), NO_RANGES, _mapped(content)):
            pages = change.pages.astype(np.intp) + change.number * PAGES_PER_PIECE - _first(content)
            assert (np.diff(pages) > 0).all()
            assert change.old is not None
            assert change.old_own is not None
            assert np.array_equal(change.old, found[pages])
            assert np.array_equal(change.own, change.new.any(axis=1))
            assert np.array_equal(change.old_own, found[pages].any(axis=1))
            found[pages] = change.new
            named += pages.tolist()
        harvest.settle()
    return found, named


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_later_rounds_win(shadow: Shadow, content: Rows, seed: int, later: bool) -> None:
    """Each page that changed is named once, with its last content, and what there was; others are not."""
    rng = np.random.default_rng(seed)
    content[:] = rng.integers(0, 2, (PAGES, 1))
    found, _ = _harvested(shadow, content, [np.arange(PAGES)], write=False)
    assert np.array_equal(found, content)
    assert np.array_equal(_known(shadow, content), content)
    for sizes in ([900], [3000, 800, 300], [40, 900, 900, 900], [5000, 1, 0, 7]):
        before = content.copy()
        rounds = [np.sort(rng.choice(PAGES, size, replace=False)) for size in sizes]
        found, named = _harvested(shadow, content, rounds, write=True, later=later)
        assert np.array_equal(found, content)
        assert sorted(named) == np.flatnonzero((content != before).any(axis=1)).tolist()
        assert np.array_equal(_known(shadow, content), content)


@pytest.mark.parametrize("pages", [[0], [5, 6, 7, 300], list(range(100)), list(range(0, 2048, 3)), list(range(2048))])
def test_shadow_holds_what_was_written(shadow: Shadow, pages: list[int]) -> None:
    """Runs longer than one write, single pages, pages without content of their own, rows that are not contiguous."""
    rng = np.random.default_rng(len(pages))
    indexes = np.array(pages, np.uint16)
    rows = rng.integers(0, 256, (len(pages), 2 * PAGE_SIZE), np.uint8)[:, ::2]
    own = rng.random(len(pages)) < 0.9
    shadow.write(7, indexes, rows, own)
    shadow.write_all([(3, indexes, rows[::-1], own), (9, indexes[:1], rows[:1], np.zeros(1, bool))])
    assert np.array_equal(shadow.read(7, indexes), np.where(own[:, None], rows, 0))
    assert np.array_equal(shadow.read(3, indexes), np.where(own[:, None], rows[::-1], 0))
    assert not shadow.read(9, indexes[:1]).any()
    assert shadow.own(7).sum() == own.sum()
    assert not shadow.own(9).any()
    shadow.forget(7)
    assert 7 not in shadow
    other = (indexes[-1:] + 1) % PAGES_PER_PIECE
    shadow.write(11, other, np.ones((1, PAGE_SIZE), np.uint8), np.ones(1, bool))
    assert not shadow.read(11, indexes[indexes != other]).any()  # in the place of piece 7


def test_what_is_copied_again_and_again_is_compared_without_the_file(
    shadow: Shadow, content: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to it or read from it but what was not copied the last time, or is not copied again."""
    content[:] = 1
    _harvested(shadow, content, [np.arange(PAGES)], write=False)
    moved: list[int] = []

    def counted(calls: Calls) -> Results:
        moved.append(int(calls[:, 3].sum()) // PAGE_SIZE)
        return call_in_a_row(calls)

    hot = np.arange(100, 2500)
    _harvested(shadow, content, [hot], write=True)
    monkeypatch.setattr("vcsimg.capture.shadow.call_in_a_row", counted)
    for _ in range(3):
        before = content.copy()
        pages = np.delete(hot, [5, 900])
        found, named = _harvested(shadow, content, [pages, pages[::7]], write=True)
        assert np.array_equal(found[pages], content[pages])
        assert sorted(named) == np.flatnonzero((content != before).any(axis=1)).tolist()
        # The fixture itself looks at all that the shadow has before each capture: hot pages are not read for that either.
        assert sum(moved) <= PAGES - len(pages) + 2
        moved.clear()
    assert np.array_equal(_known(shadow, content)[hot], content[hot])


def test_pieces_that_are_forgotten_have_no_copies(shadow: Shadow, content: Rows) -> None:
    content[:] = 1
    _harvested(shadow, content, [np.arange(PAGES)], write=False)
    _harvested(shadow, content, [np.arange(0, PAGES, 3)], write=True)
    numbers = list(shadow.numbers())
    for number in numbers:
        shadow.forget(number)
    one = np.zeros(1, np.uint16)
    for number in numbers:
        shadow.write(number, one, np.full((1, PAGE_SIZE), 7, np.uint8), np.ones(1, bool))
        assert not shadow.read(number, np.arange(1, PAGES_PER_PIECE, dtype=np.uint16)).any()


def test_copies_that_find_no_room_in_the_file_make_their_pieces_unknown(
    shadow: Shadow, content: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    content[:] = 1
    _harvested(shadow, content, [np.arange(PAGES)], write=False)
    _harvested(shadow, content, [np.arange(0, PAGES, 3)], write=True)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("vcsimg.capture.shadow.call_in_a_row", lambda calls: np.full(len(calls), -errno.ENOSPC))
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(DiskFull):
        shadow.keep([])
    assert shadow.is_empty


def test_where_captures_are_seldom_no_copies_are_kept(shadow: Shadow, content: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    content[:] = 1
    _harvested(shadow, content, [np.arange(PAGES)], write=False)
    _harvested(shadow, content, [np.arange(1000)], write=True)
    assert shadow._copies
    monkeypatch.setattr("vcsimg.memory.room._SELDOM", -1.0)
    _harvested(shadow, content, [np.arange(500, 1500)], write=True)
    assert not shadow._copies
    assert np.array_equal(_known(shadow, content), content)
