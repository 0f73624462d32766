"""Captures of formats 1 to 3. Their pieces are of 2 MiB, quarters of what a piece is now, each with one keyframe and a chain of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vcsimg.delta.units import QUARTER
from vcsimg.errors import HostileImage
from vcsimg.image.pages import Bytes2D, Flags, Piece
from vcsimg.image.units import PIECE_SHIFT
from vcsimg.store import chain as chains
from vcsimg.store.layout import DIGIT, FLAT, HIGH, flat_number
from vcsimg.store.objects import Entry, Objects
from vcsimg.store.source import Held, StoredPieces, Trees

_KEY = "key"
_SHIFT = 21
QUARTER_BITS = PIECE_SHIFT - _SHIFT
_QUARTERS = 1 << QUARTER_BITS
DEPTH = 4
"""Names from memory/ down to a quarter's directory, of many."""
_EVEN = re.compile(r"[02468ace]\Z")


def is_old(objects: Objects, memory: Entry, where: str) -> bool:
    """Whether a process's memory is of an older format. Reads trees only, of one piece."""
    entry: Entry | None = memory
    for _ in range(DEPTH + 1):
        if entry is None or not entry.is_tree:
            return False
        entries = objects.tree(entry.oid, where)
        if any(name.endswith(f".{_KEY}") for name in entries):
            return True
        entry = next(iter(entries.values()), None)
    return False


def quarter_number(names: tuple[str, ...]) -> int | None:
    """The address of a piece, divided by 2 MiB, that a path below memory/ spells, or None."""
    if len(names) == FLAT:
        return flat_number(names[0], _SHIFT)
    if len(names) != DEPTH or not HIGH.match(names[0]) or not _EVEN.match(names[3]):
        return None
    return int("".join(names), 16) >> (_SHIFT - 20) if all(DIGIT.match(name) for name in names[1:]) else None


def find_quarters(trees: Trees, base: tuple[str, ...], number: int) -> list[Entry | None]:
    """The directories of the quarters of a piece, in a process's memory at `base`."""
    found = []
    for quarter in range(number * _QUARTERS, (number + 1) * _QUARTERS):
        address = quarter << _SHIFT
        digits = (f"{address >> 28 & 15:x}", f"{address >> 24 & 15:x}", f"{address >> 20 & 15:x}")
        found.append(trees.find((*base, f"{address:012x}")) or trees.find((*base, f"{address >> 32:x}", *digits)))
    return found


class OldPieces(StoredPieces):
    """The memory of one process in such a capture. No delta leads from piece to piece: each is rebuilt."""

    depth = DEPTH
    spelled = staticmethod(quarter_number)

    def numbers(self) -> Iterator[int]:
        """Numbers of all pieces, ascending. Raises HostileImage, DamagedImage."""
        return iter(sorted({number >> QUARTER_BITS for number in super().numbers()}))

    def links(self, number: int) -> list[chains.Link]:
        """None: a piece has no chain of its own."""
        return []

    def held(self, number: int) -> Held | None:
        """A piece, every page verified, without a chain; None when no page of it has own content. Raises DamagedImage, HostileImage."""
        piece = self._composed(number, range(_QUARTERS))
        return Held(piece, [], 0) if piece is not None else None

    def pages(self, number: int, first: int, last: int) -> Piece | None:
        piece = self._composed(number, range(first // QUARTER, (last - 1) // QUARTER + 1))
        return Piece(piece.own[first:last], piece.data[first:last]) if piece is not None else None

    def _composed(self, number: int, quarters: range) -> Piece | None:
        """A piece of which these quarters are filled in; None when no page of any has own content."""
        entries = find_quarters(self._trees, (), number) if self._trees is not None else []
        if not any(entries):
            return None
        piece = Piece.empty()
        for quarter in quarters:
            entry = entries[quarter]
            if entry is not None:
                rows = slice(quarter * QUARTER, (quarter + 1) * QUARTER)
                piece.own[rows], piece.data[rows] = self._quarter(number, quarter, entry)
        return piece

    def _quarter(self, number: int, quarter: int, entry: Entry) -> tuple[Flags, Bytes2D]:
        """own (512,) and data (512, 4096) of a quarter."""
        assert self._trees is not None
        where = self.where(number, quarter * QUARTER)
        if not entry.is_tree:
            raise HostileImage(where, "its chain is no directory")
        links = chains.links(self._trees.list(entry.oid), where, (_KEY,))
        deltas = chains.read_deltas(self._objects, links, (number * _QUARTERS + quarter) << _SHIFT, where)
        if any(int(delta.pages[-1]) >= QUARTER for delta in deltas):
            raise HostileImage(where, "its index names pages beyond its end")
        state = chains.check_state(deltas, where)
        with self.naming(number, quarter * QUARTER):
            piece = chains.rebuild(deltas, state, where)
        return piece.own[:QUARTER], piece.data[:QUARTER]
