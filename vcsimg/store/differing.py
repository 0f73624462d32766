"""Where the memory of two captures can differ. Trees alone tell."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from vcsimg.image.region import RegionMap
from vcsimg.store import older
from vcsimg.store.layout import DEEP, piece_number
from vcsimg.store.load import stored_pieces
from vcsimg.store.objects import Entry, Objects, Oid
from vcsimg.store.source import Trees, find_piece


def differing(objects: Objects, one: Oid, two: Oid, pid: int, where: str) -> Iterator[int]:
    """Numbers of the pieces of a process whose chains differ between two trees, in no order."""
    sides = [objects.find(root, f"proc/{pid}/memory", where) for root in (one, two)]
    if sides[0] == sides[1]:
        return
    formats = {older.is_old(objects, side, where) for side in sides if side is not None}
    if formats == {True, False}:
        yield from {number for side in sides for number in stored_pieces(objects, side, RegionMap([]), where).numbers()}
    elif formats == {True}:
        yield from {number >> older.QUARTER_BITS for number in _Comparison(objects, where, *sides, old=True)}
    else:
        yield from _Comparison(objects, where, *sides, old=False)


class _Comparison:
    """Compares two directories of memory, of one format."""

    def __init__(self, objects: Objects, where: str, one: Entry | None, two: Entry | None, *, old: bool) -> None:
        self._objects = objects
        self._where = where
        self._depth, self._spelled = (older.DEPTH, older.quarter_number) if old else (DEEP, piece_number)
        self._ones: dict[int, Entry | None] = {}
        self._twos: dict[int, Entry | None] = {}
        self._compare((), one, two)

    def __iter__(self) -> Iterator[int]:
        return (number for number, entry in self._ones.items() if entry != self._twos[number])

    def _compare(self, names: tuple[str, ...], one: Entry | None, two: Entry | None) -> None:
        if one == two:
            return
        number = self._spelled(names)
        if number is not None:
            # The same chain may stand elsewhere in the other, if that has few pieces and this one has many.
            self._ones[number] = one or self._ones.get(number)
            self._twos[number] = two or self._twos.get(number)
        elif len(names) < self._depth:
            below, others = self._below(one), self._below(two)
            for name in below.keys() | others.keys():
                self._compare((*names, name), below.get(name), others.get(name))

    def _below(self, entry: Entry | None) -> dict[str, Entry]:
        return self._objects.tree(entry.oid, self._where) if entry is not None and entry.is_tree else {}


def memory_id(objects: Objects, root: Oid, pid: int, numbers: Sequence[int], where: str) -> Hashable:
    """Equal for two captures only if the map, the mapped files and these pieces of the process are the same in both; None if the capture does not
    have the process."""
    trees = Trees(objects, root, where)
    base = ("proc", str(pid))
    if trees.find(base) is None:
        return None
    entries = [trees.find((*base, name)) for name in ("map", "mapped", "unreadable")]
    memory = trees.find((*base, "memory"))
    old = memory is not None and older.is_old(objects, memory, where)
    for number in numbers:
        entries += older.find_quarters(trees, (*base, "memory"), number) if old else [find_piece(trees, (*base, "memory"), number)]
    return tuple(entry and entry.oid for entry in entries)
