"""The history that the bundles of older formats in data/ hold, made from a seed, so that tests know its content.

A bundle is made by the package as it was when it wrote that format, from the root of a checkout of that commit
(format 1: b4466d3^; format 2: ff7633c; format 3: 516da68):

    PYTHONPATH=$PWD python HERE/tests/store/old_history.py HERE/tests/store/data/format-1.bundle
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from store_model import Model

from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import FileContent, MappedFile, Snapshot
from vcsimg.store import Repository

BASE = 0x7F1234400000
PIECE_SIZE = 2 << 20
"""Of all older formats."""
BRANCH = "model.4242"
CAPTURES = 48
LIBRARY = b"a library, or so " * 1000


def steps() -> Iterator[Model]:
    """The process at each capture: bytes that change, content that moves about, a piece that comes and goes; enough for chains to be merged."""
    rng = random.Random(11)
    model = Model(size=2 * PIECE_SIZE, base=BASE)
    model.write(BASE, rng.randbytes(6000))
    moving = rng.randbytes(8192)
    for step in range(CAPTURES):
        model.write(BASE + rng.randrange(6000), rng.randbytes(9))
        model.write(BASE + 40960, step.to_bytes(8, "little"))
        if 20 <= step < 23:
            model.write(BASE + PIECE_SIZE, moving[step:][:2048])
        if step == 30:
            model.write(BASE + PIECE_SIZE + 81920, b"some text " * 30)
        if step == 40:
            model.regions = RegionMap([Region(BASE, BASE + PIECE_SIZE, "rw-p", 0, "00:00", 0, "[heap]")])
            model.pages = {page: data for page, data in model.pages.items() if page < (BASE + PIECE_SIZE) >> 12}
        yield model


def with_library(snapshot: Snapshot) -> Snapshot:
    """The same, with a file mapped."""
    sha256 = hashlib.sha256(LIBRARY).hexdigest()
    region = Region(0x10000000, 0x10010000, "r-xp", 0, "08:01", 9, "/lib")
    (process,) = snapshot.processes
    mapped = (MappedFile("08:01", 9, "/lib", len(LIBRARY), sha256),)
    process = replace(process, regions=RegionMap([region, *process.regions]), mapped=mapped)
    content = FileContent(sha256, len(LIBRARY), None, lambda offset, length: LIBRARY[offset : offset + length])
    return replace(snapshot, processes=(process,), files={sha256: content})


def main() -> None:
    """Write the history with the package that is imported, as a bundle."""
    with tempfile.TemporaryDirectory() as folder:
        tip: list[str] = []
        with Repository.init(Path(folder) / "repo", sync="none") as repo:
            for model in steps():
                tip = [repo.commit(with_library(model.snapshot()), branch=BRANCH, parents=tip)]
                model.tip, model.stored = tip[0], dict(model.pages)
        command = ["git", "-C", repo.path, "bundle", "create", "-q", Path(sys.argv[1]).absolute(), "--all"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
