"""An image in hand that steps from capture to capture."""

from __future__ import annotations

from collections.abc import Callable

from vcsimg.image.pages import PieceSource
from vcsimg.image.snapshot import Snapshot
from vcsimg.store.differing import differing
from vcsimg.store.opened import Opened
from vcsimg.store.source import StoredPieces
from vcsimg.store.stepping import HeldPieces

Load = Callable[[str, Callable[[int, StoredPieces], PieceSource]], Snapshot]
"""load(capture, source): its image, with `source(pid, stored)` between memory and store."""


class Walker:
    """The image of a capture, kept in memory as far as it was read, and moved to others by the deltas between them.

    `snapshot` is the capture where it stands. Its memory changes with every `move`: what was read before stays what it was,
    but pieces taken from it change in place.
    """

    def __init__(self, opened: Opened, load: Load, rev: str) -> None:
        self._opened = opened
        self._read = load
        self._pieces: dict[int, HeldPieces] = {}
        self.capture = str(opened.commit(rev).id)
        self.snapshot = self._load(self.capture, None)
        self.stepped = 0
        """Pieces that the last move reached by deltas."""
        self.rebuilt = 0
        """Pieces in hand that it let go, since no delta led there."""

    def move(self, rev: str) -> Snapshot:
        """Go to another capture: one delta a changed piece to a neighbour, a few to others near by.

        Raises UnknownRevision, DamagedImage, HostileImage.
        """
        target = str(self._opened.commit(rev).id)
        self.stepped = self.rebuilt = 0
        before, self.capture = self.capture, target
        try:
            self.snapshot = self._load(target, before)
        except BaseException:
            self._pieces.clear()
            raise
        return self.snapshot

    def _load(self, target: str, before: str | None) -> Snapshot:
        held: dict[int, HeldPieces] = {}

        def source(pid: int, stored: StoredPieces) -> HeldPieces:
            pieces = self._pieces.get(pid)
            if pieces is None or before is None:
                pieces = HeldPieces(self._opened.objects, stored)
            else:
                stepped, rebuilt = pieces.move(stored, self._changed(before, target, pid))
                self.stepped += stepped
                self.rebuilt += rebuilt
            held[pid] = pieces
            return pieces

        snapshot = self._read(target, source)
        self._pieces = held
        return snapshot

    def _changed(self, a: str, b: str, pid: int) -> list[int]:
        return sorted(differing(self._opened.objects, self._opened.root(a), self._opened.root(b), pid, f"capture {a[:12]}"))
