"""Ranges of pages against sets of page numbers, few and many of them: they are computed in different ways."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vcsimg.capture.pages import intersect, join, page_numbers, ranges_of, ranges_of_pages, subtract
from vcsimg.image.units import PAGE_SHIFT
from vcsimg.memory.pages import _runs

PAGES = st.sets(st.integers(0, 150), max_size=100)


@given(st.lists(PAGES, max_size=4))
def test_joined_ranges_are_the_union(parts: list[set[int]]) -> None:
    joined = join([ranges_of_pages(np.array(sorted(part), np.int64)) for part in parts])
    everything = sorted(set().union(*parts))
    assert page_numbers(joined).tolist() == everything
    assert (joined[1:, 0] > joined[:-1, 1]).all()  # ascending, and none touches the next
    assert joined.dtype == np.uint64
    assert joined.shape == (len(joined), 2)


@given(PAGES, PAGES)
def test_intersection_and_difference(first: set[int], second: set[int]) -> None:
    one, other = (ranges_of_pages(np.array(sorted(part), np.int64)) for part in (first, second))
    assert page_numbers(intersect(one, other)).tolist() == sorted(first & second)
    assert page_numbers(subtract(one, other)).tolist() == sorted(first - second)


@given(PAGES.filter(bool))
def test_runs_of_pages(pages: set[int]) -> None:
    runs = _runs(np.array(sorted(pages), np.int64))
    assert runs.dtype == np.uint64
    starts, lengths = runs[:, 0], runs[:, 1]
    assert (starts[1:] > (starts + lengths)[:-1]).all()
    assert page_numbers(ranges_of(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))).tolist() == sorted(pages)
    assert int(lengths.sum()) == len(pages) << PAGE_SHIFT
