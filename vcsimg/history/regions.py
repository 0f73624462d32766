"""How one memory map became another.

Regions of the same mapping are found by overlap: an mprotect in the middle of a region makes three of one, and is told as a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from vcsimg.history.changes import RegionChange
from vcsimg.image.region import Region, RegionMap, backing_of
from vcsimg.image.snapshot import Process

_Regions = tuple[Region, ...]
_Backing = Mapping[tuple[str, int], str]
_DELETED = " (deleted)"


def changed_regions(a: Process, b: Process) -> Iterator[RegionChange]:
    """Differences of two maps, ascending by address; regions that are the same in both are not among them."""
    backing = a.backing(), b.backing()
    for before, after in _groups(a, b):
        kinds = _kinds(before, after, backing)
        if kinds:
            yield RegionChange(b.pid, kinds, before, after)


def same_mapping(a: Region, b: Region) -> bool:
    """Two regions that overlap show the same thing at the same addresses: the same part of one file, or both no file."""
    if a.has_file != b.has_file or a.special != b.special:
        return False
    if not a.has_file:
        return True
    same_file = (a.device, a.inode) == (b.device, b.inode) or a.name.removesuffix(_DELETED) == b.name.removesuffix(_DELETED)
    return same_file and a.start - a.offset == b.start - b.offset


def overlaps(a: Iterable[Region], b: Iterable[Region]) -> Iterator[tuple[int, int, Region, Region]]:
    """(start, end, region of a, region of b) of every range that both maps have, ascending."""
    ours, theirs = iter(a), iter(b)
    one, two = next(ours, None), next(theirs, None)
    while one is not None and two is not None:
        start, end = max(one.start, two.start), min(one.end, two.end)
        if start < end:
            yield start, end, one, two
        if one.end <= two.end:
            done = one.end == two.end
            one = next(ours, None)
            if done:
                two = next(theirs, None)
        else:
            two = next(theirs, None)


def _groups(a: Process, b: Process) -> list[tuple[_Regions, _Regions]]:
    """Regions of a and of b that are linked by overlap of the same mapping; those without a partner stand alone."""
    groups: list[tuple[list[Region], list[Region]]] = []
    of_a: dict[int, int] = {}
    of_b: dict[int, int] = {}
    for _, _, one, two in overlaps(a.regions, b.regions):
        if not same_mapping(one, two):
            continue
        # Ranges come in order of address, so a region's group is always the last one made.
        index = of_a.get(one.start, of_b.get(two.start))
        if index is None:
            index = len(groups)
            groups.append(([], []))
        if one.start not in of_a:
            groups[index][0].append(one)
            of_a[one.start] = index
        if two.start not in of_b:
            groups[index][1].append(two)
            of_b[two.start] = index
    _join_neighbours(a.regions, of_a, [group[0] for group in groups])
    _join_neighbours(b.regions, of_b, [group[1] for group in groups])
    groups += [([region], []) for region in a.regions if region.start not in of_a]
    groups += [([], [region]) for region in b.regions if region.start not in of_b]
    out = [(tuple(before), tuple(after)) for before, after in groups]
    out.sort(key=lambda group: ((group[0] or group[1])[0].start, not group[0]))
    return out


def _join_neighbours(regions: RegionMap, group_of: dict[int, int], members: list[list[Region]]) -> None:
    """Give a region without a partner to the group of its neighbour, if both are parts of the heap or of a stack.

    The kernel keeps two regions where one has grown while the old part is watched for writes (userfaultfd).
    """
    pairs = [(one, two) for one, two in pairwise(regions) if one.end == two.start and one.name == two.name and _grows(one)]
    for one, two in pairs:
        if one.start in group_of and two.start not in group_of:
            group_of[two.start] = group_of[one.start]
            members[group_of[one.start]].append(two)
    for one, two in reversed(pairs):
        if two.start in group_of and one.start not in group_of:
            group_of[one.start] = group_of[two.start]
            members[group_of[two.start]].insert(0, one)


def _grows(region: Region) -> bool:
    return not region.has_file and region.name.startswith(("[heap", "[stack"))


def _kinds(before: _Regions, after: _Regions, backing: tuple[_Backing, _Backing]) -> tuple[str, ...]:
    if not before:
        return ("appeared",)
    if not after:
        return ("vanished",)
    kinds = []
    sizes = [sum(len(region.range) for region in regions) for regions in (before, after)]
    if sizes[0] != sizes[1]:
        kinds.append("grew" if sizes[1] > sizes[0] else "shrank")
    if len(before) != len(after):
        kinds.append("split" if len(after) > len(before) else "merged")
    if not kinds and [region.range for region in before] != [region.range for region in after]:
        kinds.append("moved")
    shared = [(one, two) for _, _, one, two in overlaps(before, after)]
    for kind, aspect in _ASPECTS:
        if any(aspect(one) != aspect(two) for one, two in shared):
            kinds.append(kind)
    if any(backing_of(one, backing[0]) != backing_of(two, backing[1]) for one, two in shared):
        kinds.append("backing")
    return tuple(kinds)


_ASPECTS: tuple[tuple[str, Callable[[Region], object]], ...] = (
    ("protection", lambda region: region.perms),
    ("name", lambda region: region.name),
    ("flags", lambda region: region.flags),
)
