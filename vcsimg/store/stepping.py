"""The pieces of one process in hand, moved from capture to capture by the deltas between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vcsimg.delta import Delta, page_hashes
from vcsimg.delta.blob import xor_each
from vcsimg.delta.hashes import fold, shortened
from vcsimg.errors import DamagedImage, HostileImage
from vcsimg.image.pages import Piece, PieceSource
from vcsimg.image.units import PIECE_SHIFT
from vcsimg.store import chain as chains
from vcsimg.store.layout import XOR, is_key
from vcsimg.store.objects import Objects
from vcsimg.store.source import Held, StoredPieces

_TOGETHER = 16
"""Pieces: their pages are still in the processor's cache when they are hashed again."""
_SMALL = 4096


@dataclass(frozen=True, slots=True)
class Step:
    """One delta that leads a piece in hand to another capture."""

    number: int
    held: Held
    delta: Delta
    forward: bool


class HeldPieces(PieceSource):
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
        held = self._stored.held(number)
        if held is None:
            return None
        if held.links:
            self._held[number] = held
        return held.piece

    def move(self, stored: StoredPieces, changed: Iterable[int]) -> tuple[int, int]:
        """Go to another capture, in which the chains of the pieces `changed` differ. Raises DamagedImage, HostileImage.

        Returns (pieces reached by deltas, pieces let go: they are rebuilt when they are asked for).
        """
        stepped = dropped = 0
        self._stored = stored
        single: list[tuple[int, Held, chains.Link, bool]] = []
        with self._objects.unverified():
            for number in changed:
                held = self._held.get(number)
                if held is None:
                    continue
                old, new = held.links, stored.links(number)
                held.links = new
                if len(new) == len(old) + 1 and new[:-1] == old and not is_key(new[-1].kind):
                    single.append((number, held, new[-1], True))
                elif len(old) == len(new) + 1 > 1 and old[:-1] == new and old[-1].kind == XOR:
                    single.append((number, held, old[-1], False))
                else:
                    deltas = self._way(old, new, number, held.state)
                    if deltas is None:
                        del self._held[number]
                        dropped += 1
                        continue
                    for delta, forward in deltas:
                        held.state = apply(held.piece, held.state, delta, stored.where(number), forward=forward)
                stepped += 1
            for first in range(0, len(single), _TOGETHER):
                self._step(single[first : first + _TOGETHER])
        return stepped, dropped

    def _step(self, single: list[tuple[int, Held, chains.Link, bool]]) -> None:
        """Apply one delta each to several pieces."""
        where = self._stored.where
        links = [(number, link) for number, _, link, _ in single]
        deltas = chains.read_newest(self._objects, links, where)
        steps = [Step(number, held, delta, forward) for (number, held, _, forward), delta in zip(single, deltas, strict=True)]
        for step in apply_together(steps):
            step.held.state = apply(step.held.piece, step.held.state, step.delta, where(step.number), forward=step.forward)

    def _way(self, old: list[chains.Link], new: list[chains.Link], number: int, state: int) -> list[tuple[Delta, bool]] | None:
        """The deltas that lead from one chain's content to another's, and whether forward; None when there are none at hand."""
        where, address = self._stored.where(number), number << PIECE_SHIFT
        if len(new) > len(old) and new[: len(old)] == old and not is_key(new[len(old)].kind):
            return [(chains.read_delta(self._objects, link, address, where), True) for link in new[len(old) :]]
        if len(old) > len(new) > 0 and old[: len(new)] == new:
            back = old[len(new) :]
            if any(link.kind != XOR for link in back):
                return None
            return [(chains.read_delta(self._objects, link, address, where), False) for link in reversed(back)]
        if not new:
            return None
        # One of the chains was merged or re-based: the newest delta of the later one still leads between neighbours.
        last = chains.read_delta(self._objects, new[-1], address, where)
        if not is_key(new[-1].kind) and last.before == state:
            return [(last, True)]
        ours = chains.read_delta(self._objects, old[-1], address, where)
        if old[-1].kind == XOR and ours.before == last.after:
            return [(ours, False)]
        return None


def apply_together(steps: Sequence[Step]) -> list[Step]:
    """Do what apply() does for those of several pieces whose deltas are of few words and change no page's being there: one by one each costs
    some twenty calls of numpy for a few hundred bytes. Returns the others, damaged ones among them, as they were."""
    some: list[Step] = []
    rest: list[Step] = []
    for step in steps:
        delta = step.delta
        plain = delta.has_words and len(delta.payload) < _SMALL and bool(delta.had.all()) and bool(delta.has.all())
        (some if plain and bool(step.held.piece.own[delta.pages].all()) else rest).append(step)
    if not some:
        return rest
    counts = np.array([len(step.delta.pages) for step in some], np.intp)
    ends = np.cumsum(counts)
    starts = ends - counts
    pages = np.concatenate([step.delta.pages for step in some])
    rows = np.concatenate([step.held.piece.data[step.delta.pages] for step in some])
    gone = page_hashes(rows, pages)
    try:
        xor_each([step.delta for step in some], rows, "pieces")
    except (DamagedImage, HostileImage):
        return list(steps)
    came = page_hashes(rows, pages)
    folds = np.bitwise_xor.reduceat(gone ^ came, starts).tolist()
    right = np.logical_and.reduceat(shortened(came) == np.concatenate([step.delta.hashes for step in some]), starts).tolist()
    for step, fold_, fine, start, end in zip(some, folds, right, starts.tolist(), ends.tolist(), strict=True):
        delta, held = step.delta, step.held
        before, after = (delta.before, delta.after) if step.forward else (delta.after, delta.before)
        if held.state != before or held.state ^ fold_ != after or (step.forward and not fine):
            rest.append(step)
            continue
        held.piece.data[delta.pages] = rows[start:end]
        held.state = after
    return rest


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
