"""A store in memory: what the capture tests commit to, so that they test captures and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vcsimg.image.pages import DictPieces, ImageMemory, Piece, PieceChange
from vcsimg.image.snapshot import FileContent, Snapshot
from vcsimg.image.units import PIECE_SHIFT

_DRAFT = "draft"


class MemoryStore:
    """Keeps the last capture and the one that it is relative to, whole. Checks what a change says of the content before."""

    def __init__(self) -> None:
        self._images: dict[str, Snapshot] = {}
        self._pieces: dict[tuple[str, int], dict[int, Piece]] = {}
        self._files: dict[str, FileContent] = {}
        self._contents: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self.pages_changed = 0

    def commit(self, snapshot: Snapshot) -> str:
        name = f"capture-{next(self._numbers)}"
        self._images = {base: image for base, image in self._images.items() if base == snapshot.base}
        before = snapshot.base or _DRAFT
        self._pieces = {key: pieces for key, pieces in self._pieces.items() if key[0] == before}
        for sha256, content in snapshot.files.items():
            if sha256 not in self._contents:
                self._contents[sha256] = content.read(0, content.size)
        processes = []
        self.pages_changed = 0
        for process in snapshot.processes:
            assert process.changes is not None
            pieces = dict(self._pieces.get((before, process.pid), {}))
            for change in process.changes:
                pieces[change.number] = self._applied(pieces.get(change.number, Piece.empty()), change)
            mapped = {number for region in process.regions for number in region.range.pieces() if region.end < 1 << 63}
            pieces = {number: piece for number, piece in pieces.items() if number in mapped and piece.own.any()}
            self._pieces[name, process.pid] = pieces
            memory = ImageMemory(process.regions, DictPieces(pieces), process.backing(), self, process.unreadable)
            processes.append(replace(process, memory=memory, changes=None))
        self._images[name] = replace(snapshot, processes=tuple(processes))
        return name

    def draft(self, pid: int, changes: Iterable[PieceChange]) -> None:
        """What the next capture, if it has no base, is relative to."""
        pieces = {change.number: self._applied(Piece.empty(), change) for change in changes}
        assert (_DRAFT, pid) not in self._pieces
        self._pieces[_DRAFT, pid] = pieces

    def load(self, name: str) -> Snapshot:
        return self._images[name]

    def size(self, sha256: str) -> int | None:
        content = self._contents.get(sha256)
        return None if content is None else len(content)

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        return self._contents[sha256][offset : offset + length]

    def _applied(self, piece: Piece, change: PieceChange) -> Piece:
        pages = change.pages.astype(int)
        assert (np.diff(pages) > 0).all(), "pages must be ascending, each once"
        if change.old is not None:
            assert change.old_own is not None
            assert (piece.own[pages] == change.old_own).all(), f"piece {change.number << PIECE_SHIFT:#x}: wrong flags before"
            assert (piece.data[pages] == change.old).all(), f"piece {change.number << PIECE_SHIFT:#x}: wrong content before"
        own, data = piece.own.copy(), piece.data.copy()
        self.pages_changed += int(((data[pages] != change.new).any(axis=1) | (own[pages] != change.own)).sum())
        own[pages], data[pages] = change.own, change.new
        return Piece(own, data)
