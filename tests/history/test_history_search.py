"""Where bytes occur."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Target, compile_target
from tests.export.images import anonymous, image
from tests.live_snapshot import snapshot_of, stop_in_read
from vcsimg.history import search
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Snapshot
from vcsimg.image.units import PIECE_SIZE

BASE = 0x40000000
PAGE = 4096


def found(snapshot_regions: list[Region], pages: dict[int, bytes], pattern: bytes) -> list[int]:
    return [address for _, address in search(image(snapshot_regions, pages), pattern)]


@settings(deadline=None, database=None)
@given(
    st.dictionaries(st.integers(0, 5), st.lists(st.tuples(st.integers(0, PAGE - 1), st.sampled_from(b"ab")), max_size=4)),
    st.binary(min_size=1, max_size=5).filter(any) | st.text("ab\0", min_size=1, max_size=4).map(str.encode).filter(any),
    st.sets(st.integers(0, 6), min_size=1),
)
def test_all_occurrences_are_found(content: dict[int, list[tuple[int, int]]], pattern: bytes, borders: set[int]) -> None:
    """In pages around the border of two pieces, in one or several adjacent regions."""
    first = BASE + PIECE_SIZE - 3 * PAGE
    pages = {}
    for page, bytes_ in content.items():
        data = bytearray(PAGE)
        for place, byte in bytes_:
            data[place] = byte
        if any(data):
            pages[first + page * PAGE] = bytes(data)
    cuts = sorted({0, 6, *borders})
    regions = [anonymous(first + a * PAGE, (b - a) * PAGE) for a, b in pairwise(cuts)]
    whole = b"".join(pages.get(first + page * PAGE, bytes(PAGE)) for page in range(6))
    expected = [first + at for at in range(len(whole)) if whole.startswith(pattern, at)]
    assert found(regions, pages, pattern) == expected


def test_zeros_around_content_count() -> None:
    middle = BASE + 3 * PIECE_SIZE
    region = [anonymous(BASE, 7 * PIECE_SIZE)]
    assert found(region, {middle: b"end"}, bytes(5) + b"end") == [middle - 5]
    last = middle + PIECE_SIZE - PAGE
    assert found(region, {last: bytes(PAGE - 1) + b"x"}, b"x" + bytes(9000)) == [last + PAGE - 1]


def test_a_gap_between_regions_is_no_match() -> None:
    regions = [anonymous(BASE, PAGE), anonymous(BASE + 2 * PAGE, PAGE)]
    pages = {BASE: bytes(PAGE - 2) + b"ab", BASE + 2 * PAGE: b"cd"}
    assert found(regions, pages, b"abcd") == []
    assert found(regions, pages, b"b\0\0") == []
    assert found(regions, pages, b"ab") == [BASE + PAGE - 2]


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        list(search(image([anonymous(BASE, PAGE)], {}), b""))


@pytest.mark.parametrize("as_image", [True, False])
def test_a_string_in_a_live_process(start: Callable[..., Target], as_image: bool) -> None:
    """In its mapped file, its data, its heap of pages without content, and beyond a page that cannot be read."""
    library = compile_target("export_library", "-shared", "-fPIC")
    target = start(compile_target("export_threads", str(library)), 1, 64)
    word, _ = (int(address, 16) for address in target.line().split())
    stop_in_read(target)
    snapshot = snapshot_of(target.pid, image=as_image)
    places = [address for _, address in search(snapshot, b"a word in the desert")]
    assert word in places
    literals = [at(snapshot, address) for _, address in search(snapshot, b"hello, core\0")]
    assert any(region.has_file and region.perms == "r--p" for region in literals), "no page of it has own content"
    mapped = {address for _, address in search(snapshot, b"hello, core\0", include=lambda region: region.has_file)}
    assert mapped == {address for _, address in search(snapshot, b"hello, core\0") if at(snapshot, address).has_file}


def at(snapshot: Snapshot, address: int) -> Region:
    region = snapshot.processes[0].regions.find(address)
    assert region is not None
    return region
