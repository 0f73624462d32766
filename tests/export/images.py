"""Small images built by hand, for what no live process shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from vcsimg.image.pages import DictPieces, ImageMemory, NoFiles, Piece
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import Process, Snapshot, Thread
from vcsimg.image.units import PAGE_SIZE, PIECE_SIZE


def image(regions: Iterable[Region], pages: Mapping[int, bytes], *threads: Thread, pid: int = 100) -> Snapshot:
    """One process; `pages`: contents of pages by address."""
    pieces: dict[int, Piece] = {}
    for address, data in pages.items():
        piece = pieces.setdefault(address // PIECE_SIZE, Piece.empty())
        page = address % PIECE_SIZE // PAGE_SIZE
        piece.own[page] = True
        piece.data[page, : len(data)] = np.frombuffer(data, np.uint8)
    map_ = RegionMap(regions)
    memory = ImageMemory(map_, DictPieces(pieces), {}, NoFiles())
    return Snapshot((Process(pid, 1, "built", map_, threads or (Thread(pid, {}),), memory=memory),))


def anonymous(start: int, size: int, perms: str = "rw-p", name: str = "") -> Region:
    return Region(start, start + size, perms, 0, "00:00", 0, name)
