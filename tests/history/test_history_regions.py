"""How maps are matched: any two maps, and the cases by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.history.regions import changed_regions, overlaps
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import Process

PAGE = 4096


@st.composite
def maps(draw: st.DrawFn) -> RegionMap:
    regions = []
    address = 0x1000000
    for _ in range(draw(st.integers(0, 8))):
        address += draw(st.integers(0, 3)) * PAGE
        size = draw(st.integers(1, 4)) * PAGE
        name, inode = draw(st.sampled_from([("", 0), ("[heap]", 0), ("/lib/a", 7), ("/lib/b", 8)]))
        place = (address, "08:01", inode) if inode else (0, "00:00", 0)
        regions.append(Region(address, address + size, draw(st.sampled_from(["rw-p", "r--p"])), *place, name))
        address += size
    return RegionMap(regions)


def process(regions: RegionMap) -> Process:
    return Process(1, 0, "x", regions, ())


@settings(deadline=None, database=None)
@given(maps(), maps())
def test_every_region_that_changed_is_told_exactly_once(a: RegionMap, b: RegionMap) -> None:
    changes = list(changed_regions(process(a), process(b)))
    before = [region for change in changes for region in change.before]
    after = [region for change in changes for region in change.after]
    assert len(before) == len(set(before))
    assert len(after) == len(set(after))
    assert set(before) >= set(a) - set(b)
    assert set(after) >= set(b) - set(a)
    assert all(change.kinds for change in changes)
    starts = [(change.before or change.after)[0].start for change in changes]
    assert starts == sorted(starts)


@settings(deadline=None, database=None)
@given(maps(), maps())
def test_the_way_back_is_the_mirror_image(a: RegionMap, b: RegionMap) -> None:
    mirror = {
        "appeared": "vanished",
        "vanished": "appeared",
        "grew": "shrank",
        "shrank": "grew",
        "split": "merged",
        "merged": "split",
    }
    there = {
        (c.before, c.after, frozenset(mirror.get(kind, kind) for kind in c.kinds)) for c in changed_regions(process(a), process(b))
    }
    back = {(c.after, c.before, frozenset(c.kinds)) for c in changed_regions(process(b), process(a))}
    assert there == back


@settings(deadline=None, database=None)
@given(maps())
def test_a_map_does_not_differ_from_itself(a: RegionMap) -> None:
    assert list(changed_regions(process(a), process(a))) == []


@settings(deadline=None, database=None)
@given(maps(), maps())
def test_overlaps_are_what_both_have(a: RegionMap, b: RegionMap) -> None:
    pages = {address for start, end, one, two in overlaps(a, b) for address in range(start, end, PAGE)}
    everywhere = range(0x1000000, 0x1000000 + 64 * PAGE, PAGE)
    assert pages == {address for address in everywhere if a.find(address) and b.find(address)}


def kinds(before: list[Region], after: list[Region]) -> list[tuple[str, ...]]:
    return [change.kinds for change in changed_regions(process(RegionMap(before)), process(RegionMap(after)))]


def anonymous(start: int, pages: int, perms: str = "rw-p", name: str = "", flags: tuple[str, ...] = ()) -> Region:
    return Region(start * PAGE, (start + pages) * PAGE, perms, 0, "00:00", 0, name, flags)


def file(start: int, pages: int, inode: int, name: str, offset: int = 0) -> Region:
    return Region(start * PAGE, (start + pages) * PAGE, "r--p", offset, "08:01", inode, name)


def test_another_file_at_the_same_place_is_another_mapping() -> None:
    assert kinds([file(10, 4, 7, "/lib/a")], [file(10, 4, 8, "/lib/b")]) == [("vanished",), ("appeared",)]
    assert kinds([file(10, 4, 7, "/lib/a")], [file(10, 4, 7, "/lib/a", PAGE)]) == [("vanished",), ("appeared",)]
    assert kinds([file(10, 4, 7, "/lib/a")], [anonymous(10, 4)]) == [("vanished",), ("appeared",)]


def test_a_file_that_was_deleted_or_replaced_is_still_the_same_mapping() -> None:
    assert kinds([file(10, 4, 7, "/lib/a")], [file(10, 4, 7, "/lib/a (deleted)")]) == [("name",)]
    assert kinds([file(10, 4, 7, "/lib/a")], [file(10, 4, 8, "/lib/a")]) == []


def test_a_hole_in_the_middle() -> None:
    assert kinds([anonymous(10, 9)], [anonymous(10, 3), anonymous(16, 3)]) == [("shrank", "split")]


def test_a_border_that_moves_between_two_protections() -> None:
    before = [anonymous(10, 4, "r--p"), anonymous(14, 4)]
    assert kinds(before, [anonymous(10, 5, "r--p"), anonymous(15, 3)]) == [("moved", "protection")]
    assert kinds(before, [anonymous(10, 4), anonymous(14, 4, "r--p")]) == [("protection",), ("protection",)]


def test_a_stack_that_grows_down() -> None:
    assert kinds([anonymous(100, 4, name="[stack]")], [anonymous(98, 6, name="[stack]")]) == [("grew",)]


def test_a_heap_in_two_parts_has_grown() -> None:
    """The kernel does not join the new part to the old one while that is watched for writes."""
    heap, more = anonymous(10, 4, name="[heap]"), anonymous(14, 2, name="[heap]")
    assert kinds([heap], [heap, more]) == [("grew", "split")]
    assert kinds([heap, more], [heap]) == [("shrank", "merged")]
    stack = [anonymous(start, 2, name="[stack]") for start in (16, 18, 20)]
    assert kinds(stack[2:], stack) == [("grew", "split")]
    assert kinds([anonymous(10, 4)], [anonymous(10, 4), anonymous(14, 2)]) == [("appeared",)]


def test_names_and_flags() -> None:
    assert kinds([anonymous(10, 4)], [anonymous(10, 4, name="[anon:pool]")]) == [("name",)]
    assert kinds([anonymous(10, 4, flags=("rd",))], [anonymous(10, 4, flags=("rd", "dd"))]) == [("flags",)]
