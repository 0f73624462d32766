"""A model of a process's memory, from which the tests make snapshots; no live process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vcsimg.image.pages import ImageMemory, Piece, PieceChange
from vcsimg.image.records import Record
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import GENERAL_REGISTERS, CaptureFacts, Process, Snapshot, Thread
from vcsimg.image.units import PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import Repository

BASE = 0x7F1234800000


class Model:
    """One process, its pages by number (address >> 12); `capture` stores what changed since the last one."""

    def __init__(self, pid: int = 4242, size: int = 2 * PIECE_SIZE, base: int = BASE) -> None:
        self.pid = pid
        self.regions = RegionMap([Region(base, base + size, "rw-p", 0, "00:00", 0, "[heap]", ("rd", "wr"))])
        self.base = base
        self.pages: dict[int, bytes] = {}
        self.stored: dict[int, bytes] = {}
        self.tip: str | None = None
        self.count = 0
        self.registers = dict.fromkeys(GENERAL_REGISTERS, 0)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes, as the process would; a page of zeros has no own content."""
        while data:
            page, skip = divmod(address, PAGE_SIZE)
            part = data[: PAGE_SIZE - skip]
            old = self.pages.get(page, bytes(PAGE_SIZE))
            new = old[:skip] + part + old[skip + len(part) :]
            if new.strip(b"\0"):
                self.pages[page] = new
            else:
                self.pages.pop(page, None)
            address, data = address + len(part), data[len(part) :]

    def snapshot(self, *, whole: bool = False, know_old: bool = True, extra: int = 0) -> Snapshot:
        """What a capturer would hand over. `extra` pages that have not changed are named too, in each piece."""
        self.count += 1
        self.registers["rip"] = 0x401000 + self.count
        thread = Thread(self.pid, dict(self.registers), b"\0" * 512 + b"\x7f" * 64, (Record.make("mask", blocked="-"),))
        facts = CaptureFacts("test", 1_700_000_000 + self.count, pause=0.001, start_ticks=77, boot_id="boot", host="h", kernel="6")
        process = Process(self.pid, 1, "model", self.regions, (thread,), state={"status": (Record.make("name", value="model"),)})
        base = None if whole or self.tip is None else self.tip
        changes = list(self._changes(base is None, know_old, extra))
        return Snapshot((replace(process, changes=iter(changes)),), base=base, facts=facts)

    def _changes(self, whole: bool, know_old: bool, extra: int) -> Iterator[PieceChange]:
        old_pages = {} if whole else self.stored
        names = {page for page in old_pages.keys() | self.pages.keys() if old_pages.get(page) != self.pages.get(page)}
        for number in sorted({page * PAGE_SIZE >> PIECE_SHIFT for page in names}):
            first = number * PAGES_PER_PIECE
            mine = sorted(page for page in names if first <= page < first + PAGES_PER_PIECE)
            mine = sorted({*mine, *list(range(first, first + PAGES_PER_PIECE))[:extra]})
            yield PieceChange(
                number,
                np.array([page - first for page in mine], np.uint16),
                _rows([self.pages.get(page) for page in mine]),
                np.array([page in self.pages for page in mine]),
                _rows([old_pages.get(page) for page in mine]) if know_old and not whole else None,
                np.array([page in old_pages for page in mine]) if know_old and not whole else None,
            )

    def capture(self, repo: Repository, *, branch: str = "model.4242", message: str = "", **how: object) -> str:
        """Commit it, and remember what was committed."""
        snapshot = self.snapshot(**how)  # type: ignore[arg-type]
        self.tip = repo.commit(snapshot, branch=branch, parents=[self.tip] if self.tip else [], message=message)
        self.stored = dict(self.pages)
        return self.tip

    def content(self) -> dict[int, bytes]:
        """A copy of the pages."""
        return dict(self.pages)


def _rows(pages: list[bytes | None]) -> np.ndarray:
    return np.frombuffer(b"".join(page or bytes(PAGE_SIZE) for page in pages), np.uint8).reshape(-1, PAGE_SIZE)


def own_pages(snapshot: Snapshot, pid: int = 4242) -> dict[int, bytes]:
    """Every page with own content of a stored image."""
    memory = snapshot.process(pid).memory
    assert isinstance(memory, ImageMemory)
    found = {}
    for number in memory.pieces.numbers():
        piece = memory.pieces.piece(number)
        assert isinstance(piece, Piece)
        assert piece.own.any()
        for page in np.flatnonzero(piece.own):
            found[number * PAGES_PER_PIECE + int(page)] = piece.data[page].tobytes()
    return found
