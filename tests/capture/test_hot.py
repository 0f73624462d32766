"""Memory that is written between all captures costs no faults, and is found out when it no longer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.capture.comparison import assert_same
from tests.capture.memory_store import MemoryStore
from tests.conftest import Target
from vcsimg.capture import Options, Session
from vcsimg.capture.hot import Hot
from vcsimg.capture.pages import NO_RANGES, Ranges, ranges_of
from vcsimg.image.units import PAGE_SIZE

PAGES = 2048
START = 0x7F0000000000
MIB = 1 << 20


@pytest.fixture
def steps(start: Callable[..., Target], tmp_path: Path, truths: dict[int, Any]) -> Iterator[Steps]:
    target = start("capture_hot")
    assert target.line() == "ready"
    store = MemoryStore()
    with Session(target.pid, Options(scratch=tmp_path, engine="wp"), store.load) as session:
        yield Steps(target, session, store, truths)


class Steps:
    """A program that writes, and its captures."""

    def __init__(self, target: Target, session: Session, store: MemoryStore, truths: dict[int, Any]) -> None:
        self._target = target
        self._session = session
        self._store = store
        self._truths = truths

    def faults(self, pages: int) -> int:
        """Those of the program, as it writes to so many pages."""
        self._target.send(f"{pages}\n")
        return int(self._target.line())

    def pages_read(self) -> int:
        """By a capture, whose content is right."""
        with self._session.capture() as snapshot:
            commit = self._store.commit(snapshot)
            self._session.stored(commit)
        assert_same(self._store.load(commit).processes[0], self._truths[self._target.pid])
        return snapshot.facts.bytes_read // PAGE_SIZE


def test_what_is_written_between_all_captures_is_soon_written_without_faults(steps: Steps) -> None:
    steps.faults(PAGES)
    steps.pages_read()
    faults = []
    for _ in range(12):
        faults.append(steps.faults(PAGES))
        assert steps.pages_read() >= PAGES, "each page is in each capture all the same"
    assert min(faults[:3]) >= PAGES
    assert max(faults[4:]) < PAGES // 2


def test_what_is_no_longer_written_is_no_longer_read(steps: Steps) -> None:
    for _ in range(8):
        steps.faults(PAGES)
        steps.pages_read()
    steps.faults(PAGES // 4)
    read = [steps.pages_read() for _ in range(6)]
    assert read[0] >= PAGES // 2, "what was left counts as written"
    assert read[-1] < PAGES // 8


def observed(hot: Hot, *written: Ranges) -> Ranges:
    for ranges in written:
        hot.observe(ranges)
    return hot.left()


def mib(first: int, end: int) -> Ranges:
    return ranges_of([(START + first * MIB, START + end * MIB)])


def test_nothing_is_left_that_was_not_written_three_times_on_end() -> None:
    assert len(observed(Hot(), mib(0, 32), mib(0, 32))) == 0
    assert len(observed(Hot(), mib(0, 32), mib(0, 32), NO_RANGES, mib(0, 32), mib(0, 32))) == 0
    left = observed(Hot(), mib(0, 32), mib(0, 32), mib(8, 32))
    assert len(left)
    assert left.min() >= START + 8 * MIB


def test_scattered_pages_are_not_left() -> None:
    rng = np.random.default_rng(3)
    hot = Hot()
    for _ in range(20):
        pages = np.flatnonzero(rng.random(64 << 8) < 0.5).astype(np.uint64) * PAGE_SIZE + START
        hot.observe(np.column_stack((pages, pages + np.uint64(PAGE_SIZE))))
        assert len(hot.left()) == 0


@pytest.mark.parametrize(("before", "turns"), [(3, 4), (20, 16)])
def test_everything_is_protected_in_one_of_some_turns(before: int, turns: int) -> None:
    """The longer it was written, the fewer."""
    hot = Hot()
    observed(hot, *[mib(0, 32)] * before)
    protected = np.zeros(32, np.int64)
    for _ in range(turns):
        hot.observe(mib(0, 32))
        flags = np.ones(32, np.int64)
        for low, high in ((hot.left().astype(np.int64) - START) // MIB).tolist():
            flags[low:high] = 0
        protected += flags
    assert (protected == 1).all()


def test_never_more_than_64_mib_are_left() -> None:
    left = observed(Hot(), *[mib(0, 400)] * 5)
    assert int((left[:, 1] - left[:, 0]).sum()) == 64 * MIB
    assert len(observed(Hot(), *[mib(0, 800)] * 5)) == 0, "it takes too long to find out"


def test_no_huge_page_is_left_in_part() -> None:
    """Where the memory does not begin with one."""
    written = mib(0, 400) + np.uint64(5 * MIB // 4)
    left = observed(Hot(), *[written] * 5)
    assert 60 * MIB < int((left[:, 1] - left[:, 0]).sum()) <= 64 * MIB
    assert all(low % (2 * MIB) == 0 for low in left[1:, 0].tolist())
    assert all(high % (2 * MIB) == 0 for high in left[:, 1].tolist())
