"""Walking: an image in hand reaches its neighbours, on either side, by one delta a changed piece."""

from __future__ import annotations

import random

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import ImageError
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.units import PIECE_SIZE
from vcsimg.store import Repository


@pytest.fixture
def history(repo: Repository) -> list[tuple[str, dict[int, bytes]]]:
    """Eighty captures: merges, a piece that comes, one that goes."""
    rng = random.Random(6)
    model = Model()
    model.write(BASE, rng.randbytes(50_000))
    captures = []
    for step in range(80):
        if step % 3:
            model.write(BASE + rng.randrange(40_000), rng.randbytes(9))
        if step == 30:
            model.write(BASE + PIECE_SIZE, b"new piece")
        if step == 60:
            model.regions = RegionMap([Region(BASE, BASE + PIECE_SIZE, "rw-p", 0, "00:00", 0, "[heap]")])
            model.pages = {page: data for page, data in model.pages.items() if page < (BASE + PIECE_SIZE) >> 12}
        captures.append((model.capture(repo), model.content()))
    return captures


def test_forward_and_back_through_all_of_a_history(repo: Repository, history: list[tuple[str, dict[int, bytes]]]) -> None:
    """Every step is a delta: nothing is rebuilt, but pieces that appear."""
    walker = repo.walker(history[0][0])
    own_pages(walker.snapshot)
    rebuilt = 0
    for commit, pages in [*history[1:], *reversed(history[:-1])]:
        assert own_pages(walker.move(commit)) == pages
        rebuilt += walker.rebuilt
    assert rebuilt == 2  # a piece that goes, on the way there and on the way back


def test_any_jump_arrives(repo: Repository, history: list[tuple[str, dict[int, bytes]]]) -> None:
    rng = random.Random(7)
    walker = repo.walker(history[5][0])
    for _ in range(60):
        commit, pages = rng.choice(history)
        assert own_pages(walker.move(commit)) == pages
        assert walker.capture == commit


def test_a_walk_reads_only_what_is_asked_for(repo: Repository, history: list[tuple[str, dict[int, bytes]]]) -> None:
    """An address read at every capture, newest to oldest: blame and bisect do this."""
    walker = repo.walker(history[-1][0])
    for commit, pages in reversed(history):
        memory = walker.move(commit).processes[0].memory
        assert memory is not None
        assert memory.read(BASE, 4096) == pages[BASE >> 12]


def test_many_pieces_step_together(repo: Repository) -> None:
    """Small changes of many pieces, among them one of all words, one that makes a page and one that takes one away; both ways."""
    rng = random.Random(9)
    pieces = 90
    model = Model(size=pieces * PIECE_SIZE)
    for number in range(pieces):
        model.write(BASE + number * PIECE_SIZE, rng.randbytes(9000))
    captures = [(model.capture(repo), model.content())]
    for step in range(3):
        for number in range(pieces):
            model.write(BASE + number * PIECE_SIZE + rng.randrange(8000), rng.randbytes(5))
        model.write(BASE + 7 * PIECE_SIZE, rng.randbytes(8192))
        model.write(BASE + (20 + step) * PIECE_SIZE + 40960, b"a new page")
        model.write(BASE + (50 + step) * PIECE_SIZE, bytes(4096))
        captures.append((model.capture(repo), model.content()))
    walker = repo.walker(captures[0][0])
    own_pages(walker.snapshot)
    for commit, pages in [*captures[1:], *reversed(captures[:-1])]:
        assert own_pages(walker.move(commit)) == pages
        assert (walker.stepped, walker.rebuilt) == (pieces, 0)


@pytest.mark.parametrize("place", [16, 24, 34, -2])
def test_a_damaged_delta_among_many_is_named(repo: Repository, place: int) -> None:
    """Its states before and after, a hash, its payload: nothing wrong is returned, and the piece is named."""
    from test_store_safety import _replaced

    model = Model(size=9 * PIECE_SIZE)
    for number in range(9):
        model.write(BASE + number * PIECE_SIZE, b"content")
    first = model.capture(repo)
    for number in range(9):
        model.write(BASE + number * PIECE_SIZE, b"changed")
    second = model.capture(repo)
    path = ("proc", "4242", "memory", f"{BASE + 4 * PIECE_SIZE:x}", "00000001.xor")
    blob = bytearray(repo.show(second, "/".join(path)))
    blob[place] ^= 1
    walker = repo.walker(first)
    own_pages(walker.snapshot)
    with pytest.raises(ImageError, match=f"piece {BASE + 4 * PIECE_SIZE:#x}"):
        walker.move(_replaced(repo, second, path, bytes(blob)))
    assert own_pages(walker.move(second)) == model.content()
