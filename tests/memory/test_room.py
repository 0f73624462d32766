"""Memory of arrays that is used again, and never while somebody refers to it."""

from __future__ import annotations

import numpy as np
import pytest

from vcsimg.image.units import PAGE_SIZE
from vcsimg.memory import Room

MIB = (1 << 20) // PAGE_SIZE
"""Pages in a MiB."""


def address(rows: np.ndarray) -> int:
    return int(rows.ctypes.data)


def test_memory_is_used_again_when_nobody_refers_to_it() -> None:
    room = Room()
    rows = room.rows(8 * MIB)
    first = address(rows)
    assert rows.shape == (8 * MIB, PAGE_SIZE)
    del rows
    assert address(room.rows(7 * MIB)) == first, "what needs less fits, too"


@pytest.mark.parametrize(
    "part",
    [
        lambda rows: rows[5:9],
        lambda rows: rows.view(np.uint64)[3],
        lambda rows: rows.reshape(-1)[PAGE_SIZE:],
        lambda rows: rows[2].data,
        lambda rows: iter(rows),
        lambda rows: np.frombuffer(rows.reshape(-1).data, np.uint16),
    ],
)
def test_memory_of_which_any_part_is_referred_to_is_not_used_again(part: object) -> None:
    room = Room()
    rows = room.rows(2 * MIB)
    first = address(rows)
    kept = part(rows)  # type: ignore[operator]
    del rows
    assert address(room.rows(2 * MIB)) != first
    del kept
    assert first in {address(room.rows(2 * MIB)), address(room.rows(2 * MIB))}


def test_arrays_that_are_in_use_never_share_memory() -> None:
    rng = np.random.default_rng(7)
    room = Room(most=24 << 20)
    lent: list[tuple[np.ndarray, int]] = []
    for turn in range(400):
        rows = room.rows(int(rng.integers(1, 5 * MIB)))
        rows[:] = turn % 251
        lent.append((rows, turn % 251))
        while rng.random() < 0.55 and lent:
            lent.pop(int(rng.integers(len(lent))))
        if rng.random() < 0.1:
            room.turn()
        assert all((rows[[0, -1]] == value).all() for rows, value in lent)
    assert all((rows == value).all() for rows, value in lent)


def test_what_is_more_than_may_be_kept_is_lent_and_given_back() -> None:
    room = Room(most=2 << 20)
    large = room.rows(4 * MIB)
    small = room.rows(MIB)
    first = address(small)
    assert large.shape == (4 * MIB, PAGE_SIZE)
    assert block_count(room) == 1
    del large, small
    assert address(room.rows(MIB)) == first
    larger = room.rows(2 * MIB)
    assert larger.shape == (2 * MIB, PAGE_SIZE)
    assert block_count(room) == 1, "it has taken the place of the smaller one"


def test_what_is_not_used_from_turn_to_turn_is_given_back() -> None:
    room = Room()
    kept = [block_count(room)]
    for asked in (2 * MIB, 0, 0, 2 * MIB, 2 * MIB, 0, 0):
        if asked:
            room.rows(asked)
        room.turn()
        kept.append(block_count(room))
    assert kept == [0, 1, 0, 0, 1, 1, 0, 0]


def test_nothing_is_kept_where_turns_are_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcsimg.memory.room._SELDOM", -1.0)
    room = Room()
    kept = room.rows(2 * MIB)
    room.rows(2 * MIB)
    assert block_count(room) == 2
    room.turn()
    assert block_count(room) == 1, "what is in use stays"
    kept[:] = 1


def block_count(room: Room) -> int:
    return len(room._blocks)
