"""A thousand captures: the last ones are no larger than the first, packs stay few, and any can be rebuilt by reading little.

Work is counted, not timed; tests.bench.store times ten thousand.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import mean

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.image.units import PIECE_SIZE
from vcsimg.store import Repository
from vcsimg.store.objects import Objects

Git = Callable[..., str]
CAPTURES = 1000
MOST_PACKS = 50


class Counted:
    """How many objects are read in the block, and their bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects = self.bytes = 0
        real = Objects.read

        def read(objects: Objects, *arguments: object, **named: object) -> bytes:
            data = real(objects, *arguments, **named)  # type: ignore[arg-type]
            self.objects += 1
            self.bytes += len(data)
            return data

        monkeypatch.setattr(Objects, "read", read)


def test_a_thousand_captures(repo: Repository, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pieces change at each: counters in two, some words at random places in the others."""
    rng = random.Random(1)
    model = Model(size=4 * PIECE_SIZE)
    model.write(BASE + 2 * PIECE_SIZE, rng.randbytes(200_000))
    model.write(BASE + 3 * PIECE_SIZE, rng.randbytes(200_000))
    captures: list[str] = []
    written: list[int] = []
    contents: dict[str, dict[int, bytes]] = {}
    for step in range(CAPTURES):
        for piece in (0, 1):
            model.write(BASE + piece * PIECE_SIZE + 64, step.to_bytes(8, "little"))
        for piece in (2, 3):
            for _ in range(3):
                model.write(BASE + piece * PIECE_SIZE + rng.randrange(25_000) * 8, rng.randbytes(8))
        before = repo.bytes_written
        captures.append(model.capture(repo))
        written.append(repo.bytes_written - before)
        if step % 111 == 1:
            contents[captures[-1]] = model.content()
        assert len(list(repo.path.glob("objects/pack/*.pack"))) <= MOST_PACKS
    repo.close()
    assert mean(written[-300:]) <= 1.2 * mean(written[10:310])
    assert sum(file.stat().st_size for file in repo.path.glob("objects/pack/*")) < written[0] + CAPTURES * 2000

    reader = Repository.open(repo.path)
    counted = Counted(monkeypatch)
    for commit, pages in contents.items():
        assert own_pages(reader.load(commit)) == pages
    assert counted.objects / len(contents) <= 4 * 30
    counted.objects = counted.bytes = 0
    first = own_pages(reader.load(captures[1]))
    least = counted.bytes
    assert first
    for commit in captures[5::83]:
        counted.bytes = 0
        own_pages(reader.load(commit))
        assert counted.bytes <= 1.5 * least
    counted.objects = 0
    assert [capture.id for capture in reader.log(limit=20)] == captures[:-21:-1]
    assert counted.objects == 0
    monkeypatch.undo()
    assert reader.fsck().checked == CAPTURES
    git("fsck", "--full", "--strict")
