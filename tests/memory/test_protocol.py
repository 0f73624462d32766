"""Arithmetic of ranges, on generated ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.errors import AccessError
from vcsimg.memory import BytesMemory
from vcsimg.memory.protocol import as_ranges, failed_at, locate, split, total_length

LENGTHS = st.lists(st.integers(0, 50), max_size=12)


def ranges_of(lengths: list[int]) -> np.ndarray:
    return np.array([(1000 * index, length) for index, length in enumerate(lengths)], np.uint64).reshape(-1, 2)


def addresses(ranges: np.ndarray) -> list[int]:
    """Every address that the ranges name, in their order."""
    return [address for start, length in ranges.tolist() for address in range(start, start + length)]


@settings(database=None)
@given(LENGTHS, st.integers(1, 60), st.integers(1, 5))
def test_split_keeps_every_byte_in_its_order_and_the_limits(lengths: list[int], room: int, limit: int) -> None:
    ranges = ranges_of(lengths)
    batches = list(split(ranges, room, limit))
    assert [address for batch in batches for address in addresses(batch)] == addresses(ranges)
    assert all(total_length(batch) <= room and len(batch) <= limit for batch in batches)


@settings(database=None)
@given(LENGTHS.filter(any), st.data())
def test_a_failure_names_the_range_that_holds_the_next_byte(lengths: list[int], data: st.DataObject) -> None:
    ranges = ranges_of(lengths)
    done = data.draw(st.integers(0, sum(lengths) - 1))
    error = failed_at(None, ranges, done, 14)
    assert error.address + error.done == addresses(ranges)[done]
    assert error.earlier + error.done == done
    index, part = locate(ranges, done)
    assert (error.address, error.done) == (1000 * index, part)


@settings(database=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=8))
def test_many_ranges_read_like_one_after_the_other(ranges: list[tuple[int, int]]) -> None:
    content = bytes(index % 251 for index in range(300))
    memory = BytesMemory({100: bytearray(content)})
    buffer = bytearray(sum(length for _, length in ranges))
    expected = bytearray()
    failed = None
    for address, length in ranges:
        try:
            expected += memory.read(address, length)
        except AccessError as error:
            failed = error
            break
    if failed is None:
        assert memory.read_many(ranges, buffer) == len(expected)
        assert buffer == expected
        return
    with pytest.raises(AccessError) as caught:
        memory.read_many(ranges, buffer)
    error = caught.value
    assert (error.address, error.length, error.done) == (failed.address, failed.length, failed.done)
    assert error.earlier == len(expected)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 2)])
def test_ranges_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        as_ranges(None, np.zeros(shape, np.uint64), 10)


def test_ranges_that_together_are_larger_than_any_buffer_are_refused() -> None:
    # Their sum is 2 bytes in 64 bits.
    huge = np.array([(0, 1 << 63), (0, 1 << 63), (0, 2)], np.uint64)
    with pytest.raises(ValueError, match="room for 10"):
        as_ranges(None, huge, 10)
