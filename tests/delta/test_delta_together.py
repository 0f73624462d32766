"""Deltas of many pieces at once are those that would be made one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.delta import PieceState, StateMismatch, encode
from vcsimg.delta.encode import keyframes
from vcsimg.delta.together import Change, encode_together
from vcsimg.delta.words import FEW_WORDS

KINDS = ("few", "few", "few", "one", "most", "many", "same", "new page", "page gone", "wrong old")


def _state(pages: np.ndarray, rows: np.ndarray) -> PieceState:
    state = PieceState()
    keyframes(0, pages, rows, state)
    return state


def _change(kind: str, place: int, noise: np.random.Generator) -> Change:
    """A change of some pages of a piece."""
    pages = np.sort(noise.permutation(512)[: noise.integers(1, 9)]).astype(np.uint16)
    old = noise.integers(0, 256, (len(pages), 4096), dtype=np.uint8)
    state = _state(pages, old)
    had, has = np.ones(len(pages), bool), np.ones(len(pages), bool)
    new = old.copy()
    each = {"one": 1, "most": FEW_WORDS // len(pages), "many": FEW_WORDS // len(pages) + 1}.get(kind, 3)
    for row in new:
        row.view(np.uint64)[noise.permutation(512)[:each]] ^= noise.integers(1, 1 << 63, each, dtype=np.uint64)
    if kind == "same":
        new[0] = old[0]
    elif kind == "new page":
        old, had = old.copy(), had.copy()
        old[0], had[0] = 0, False
        state = _state(pages[1:], old[1:]) if len(pages) > 1 else PieceState()
    elif kind == "page gone":
        new[-1], has[-1] = 0, False
    elif kind == "wrong old":
        old = old.copy()
        old[0, 7] ^= 1
    return Change(place << 23, pages, old, had, new, has, state)


@given(st.lists(st.sampled_from(KINDS), max_size=12), st.integers(0, 1000))
@settings(deadline=None)
def test_they_are_what_encode_makes_and_so_are_the_states(kinds: list[str], seed: int) -> None:
    noise = np.random.default_rng(seed)
    changes = [_change(kind, place, noise) for place, kind in enumerate(kinds)]
    before = [copy.deepcopy(change.state) for change in changes]
    together = encode_together(changes)
    for kind, change, delta, state in zip(kinds, changes, together, before, strict=True):
        if delta is None:
            assert kind in ("many", "same", "new page", "page gone", "wrong old")
            assert (change.state.digest, change.state.hashes.tolist()) == (state.digest, state.hashes.tolist())
            continue
        alone = encode(change.address, change.pages, change.old, change.had, change.new, change.has, state)
        assert alone is not None
        assert delta.bytes() == alone.bytes()
        assert (change.state.digest, change.state.hashes.tolist()) == (state.digest, state.hashes.tolist())
        assert delta.few is not None
        if alone.few is not None:  # encode() looks for them only where the payload is small
            assert [part.tolist() for part in delta.few] == [part.tolist() for part in alone.few]


def test_a_wrong_old_content_is_left_to_encode_which_says_so() -> None:
    change = _change("wrong old", 1, np.random.default_rng(1))
    assert encode_together([change]) == [None]
    with pytest.raises(StateMismatch):
        encode(change.address, change.pages, change.old, change.had, change.new, change.has, change.state)
