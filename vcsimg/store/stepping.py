"""The pieces of one process in hand, moved from capture to capture by the deltas between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vcsimg.delta import Delta, page_hashes
from vcsimg.delta.hashes import fold, shortened
from vcsimg.errors import DamagedImage
from vcsimg.image.pages import Piece
from vcsimg.store import chain as chains
from vcsimg.store.layout import KEY, PATCH
from vcsimg.store.objects import Objects
from vcsimg.store.source import StoredPieces


@dataclass(slots=True)
class Held:
    """A piece in hand, and the state that its chain names for it."""

    piece: Piece
    state: int


class HeldPieces:
    """The memory of one process, its pieces kept once they were asked for: a PieceSource that can move between captures."""

    def __init__(self, objects: Objects, stored: StoredPieces) -> None:
        self._objects = objects
        self._stored = stored
        self._held: dict[int, Held] = {}

    def numbers(self) -> Iterable[int]:
        """Numbers of all pieces, ascending. Raises HostileImage, DamagedImage."""
        return self._stored.numbers()

    def piece(self, number: int) -> Piece | None:
        """A piece; it changes in place when the walker moves. Raises DamagedImage, HostileImage."""
        held = self._held.get(number)
        if held is not None:
            return held.piece
        piece = self._stored.piece(number)
        if piece is not None:
            last = self._stored.links(number)[-1]
            state = chains.read_delta(self._objects, last, number, self._stored.where(number)).after
            self._held[number] = Held(piece, state)
        return piece

    def move(self, stored: StoredPieces, changed: Iterable[int]) -> tuple[int, int]:
        """Go to another capture, in which the chains of the pieces `changed` differ. Raises DamagedImage, HostileImage.

        Returns (pieces reached by deltas, pieces let go: they are rebuilt when they are asked for).
        """
        stepped = dropped = 0
        before, self._stored = self._stored, stored
        for number in changed:
            held = self._held.get(number)
            if held is None:
                continue
            deltas = self._way(before.links(number), stored.links(number), number, held.state)
            if deltas is None:
                del self._held[number]
                dropped += 1
                continue
            where = stored.where(number)
            for delta, forward in deltas:
                held.state = apply(held.piece, held.state, delta, where, forward=forward)
            stepped += 1
        return stepped, dropped

    def _way(self, old: list[chains.Link], new: list[chains.Link], number: int, state: int) -> list[tuple[Delta, bool]] | None:
        """The deltas that lead from one chain's content to another's, and whether forward; None when there are none at hand."""
        where = self._stored.where(number)
        if len(new) > len(old) and new[: len(old)] == old:
            return [(chains.read_delta(self._objects, link, number, where), True) for link in new[len(old) :]]
        if len(old) > len(new) > 0 and old[: len(new)] == new:
            back = old[len(new) :]
            if any(link.kind == PATCH for link in back):
                return None
            return [(chains.read_delta(self._objects, link, number, where), False) for link in reversed(back)]
        if not new:
            return None
        # One of the chains was merged or re-based: the newest delta of the later one still leads between neighbours.
        last = chains.read_delta(self._objects, new[-1], number, where)
        if new[-1].kind != KEY and last.before == state:
            return [(last, True)]
        ours = chains.read_delta(self._objects, old[-1], number, where)
        if old[-1].kind != KEY and not ours.is_patch and ours.before == last.after:
            return [(ours, False)]
        return None


def apply(piece: Piece, state: int, delta: Delta, where: str, *, forward: bool) -> int:
    """Apply a delta to a piece in place, forward or (not a patch) backward. Returns the state reached. Raises DamagedImage.

    Every page that changes is verified, before and after: what comes out is what was captured.
    """
    start, end = (delta.before, delta.after) if forward else (delta.after, delta.before)
    own, then = (delta.had, delta.has) if forward else (delta.has, delta.had)
    if state != start or not np.array_equal(piece.own[delta.pages], own):
        raise DamagedImage(where, "a delta leads from other content")
    rows = piece.data[delta.pages]
    gone = page_hashes(rows[own], delta.pages[own])
    rows = delta.after_rows(rows, where)
    came = page_hashes(rows[then], delta.pages[then])
    reached = state ^ fold(gone) ^ fold(came)
    if reached != end or rows[~then].any() or (forward and not np.array_equal(shortened(came), delta.hashes)):
        raise DamagedImage(where, "a delta leads to other content than it names")
    piece.data[delta.pages] = rows
    piece.own[delta.pages] = then
    return reached
