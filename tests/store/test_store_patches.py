"""Content that moves about within a piece: patches instead of XORs, which lead forward only."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from store_model import BASE, Model, own_pages

from vcsimg.delta.blob import parse_all
from vcsimg.errors import ImageError
from vcsimg.store import Repository, chain

Captures = list[tuple[str, dict[int, bytes]]]
SIZE = 256 << 10


@pytest.fixture
def moved(repo: Repository) -> Captures:
    """Forty captures of incompressible content that shifts by a few bytes at each third, and has a counter."""
    rng = random.Random(8)
    model = Model()
    content = rng.randbytes(SIZE)
    captures = []
    for step in range(40):
        if step % 3 == 0:
            place = rng.randrange(SIZE // 4)
            content = (content[:place] + rng.randbytes(rng.randrange(1, 30)) + content[place:])[:SIZE]
            model.write(BASE, content)
        model.write(BASE + SIZE + 4096, step.to_bytes(8, "little"))
        captures.append((model.capture(repo), model.content()))
    return captures


def _names(repo: Repository, commit: str) -> list[str]:
    return repo.show(commit, "proc/4242/memory/7f1234800000").decode().split()


def test_content_that_moves_costs_little(repo: Repository, moved: Captures, git: Callable[..., str]) -> None:
    """A shift changes a quarter of a megabyte, and its patch is not a tenth of that; every capture comes back, and git has no complaint."""
    patches = [name for commit, _ in moved for name in _names(repo, commit) if name.endswith(".patch")]
    assert patches
    commit = next(commit for commit, _ in moved if _names(repo, commit)[-1].endswith(".patch"))
    name = _names(repo, commit)[-1]
    assert len(repo.show(commit, f"proc/4242/memory/7f1234800000/{name}")) < SIZE // 10
    for commit, pages in moved:
        assert own_pages(repo.load(commit)) == pages
    repo.close()  # while packs are consolidated, git fsck misses those that go
    git("fsck", "--full", "--strict")
    assert repo.fsck().findings == []


def test_chains_with_patches_are_merged(repo: Repository, moved: Captures) -> None:
    assert max(len(_names(repo, commit)) for commit, _ in moved) < 35


def test_walking_over_patches(repo: Repository, moved: Captures) -> None:
    """Forward by each patch; back over one, the piece is rebuilt; jumps arrive too."""
    walker = repo.walker(moved[0][0])
    own_pages(walker.snapshot)
    rebuilt = 0
    for commit, pages in moved[1:]:
        assert own_pages(walker.move(commit)) == pages
        rebuilt += walker.rebuilt
    assert not rebuilt
    for commit, pages in reversed(moved[:-1]):
        assert own_pages(walker.move(commit)) == pages
        rebuilt += walker.rebuilt
    assert rebuilt
    rng = random.Random(9)
    for _ in range(20):
        commit, pages = rng.choice(moved)
        assert own_pages(walker.move(commit)) == pages


def test_another_writer_goes_on(repo: Repository, moved: Captures) -> None:
    """One that reads the chain from the repository, patches and all."""
    model = Model()
    model.tip, model.pages, model.stored = moved[-1][0], dict(moved[-1][1]), dict(moved[-1][1])
    model.count = len(moved)
    with Repository.open(repo.path, sync="none") as again:
        for step in range(20):
            model.write(BASE + 100, step.to_bytes(8, "little"))
            commit = model.capture(again)
            assert own_pages(again.load(commit)) == model.content()


def test_a_flipped_bit_in_a_patch_is_noticed(repo: Repository, moved: Captures) -> None:
    """Wherever it is: the frame, the hashes or the index; the piece is never another one."""
    commit = next(commit for commit, _ in moved if _names(repo, commit)[-1].endswith(".patch"))
    blobs = [bytearray(repo.show(commit, f"proc/4242/memory/7f1234800000/{name}")) for name in _names(repo, commit)]
    good = chain.rebuild(deltas := parse_all(blobs, "test"), chain.check_state(deltas, "test"), "test")
    noticed = 0
    for place in range(0, len(blobs[-1]), max(1, len(blobs[-1]) // 150)):
        blobs[-1][place] ^= 1 << place % 8
        try:
            deltas = parse_all(blobs, "test")
            piece = chain.rebuild(deltas, chain.check_state(deltas, "test"), "test")
            assert np.array_equal(piece.data, good.data)
            assert np.array_equal(piece.own, good.own)
        except ImageError:
            noticed += 1
        blobs[-1][place] ^= 1 << place % 8
    assert noticed > 100
