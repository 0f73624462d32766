"""Where pieces stand in the tree of a capture: side by side if they are few, spread over directories if they are many."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import DamagedImage, HostileImage
from vcsimg.history import diff
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.units import PIECE_SIZE
from vcsimg.store import Repository
from vcsimg.store.layout import DEEP, FEW_PIECES, FLAT, piece_number, piece_path

Git = Callable[..., str]
QUARTER_SIZE = PIECE_SIZE // 4


@pytest.mark.parametrize("number", [0, 1, 0x7F1234800000 >> 23, (1 << 41) - 1])
def test_a_path_spells_one_piece(number: int) -> None:
    for depth in (FLAT, DEEP):
        names = piece_path(number, depth)
        assert len(names) == depth
        assert piece_number(names) == number


@pytest.mark.parametrize(
    "names",
    [("7f1234800001",), ("7f1234c00000",), ("7F1234800000",), ("07f1234800000",), ("800000",), ("10000000000000000",), ("x",), ()],
)
def test_other_names_spell_none(names: tuple[str, ...]) -> None:
    assert piece_number(names) is None


def _names(repo: Repository, commit: str) -> list[str]:
    return repo.show(commit, "proc/4242/memory").decode().split()


def _model() -> Model:
    return Model(size=2 * FEW_PIECES * PIECE_SIZE)


def _grow(model: Model, pieces: int) -> None:
    for number in range(pieces):
        model.write(BASE + number * PIECE_SIZE, b"piece %d" % number)


def _shrink(model: Model, pieces: int) -> None:
    end = BASE + pieces * PIECE_SIZE
    model.regions = RegionMap([Region(BASE, end, "rw-p", 0, "00:00", 0, "[heap]", ("rd", "wr"))])
    model.pages = {page: data for page, data in model.pages.items() if page << 12 < end}


@pytest.mark.parametrize("anew", [False, True], ids=["one writer", "a new writer each time"])
def test_few_stand_side_by_side_and_many_do_not(repo: Repository, git: Git, anew: bool) -> None:
    """A process grows and shrinks again; around the border nothing is moved back and forth."""
    model = _model()
    captures = []

    def capture() -> list[str]:
        writer = Repository.open(repo.path, sync="none") if anew else repo
        captures.append((model.capture(writer), model.content()))
        return _names(repo, captures[-1][0])

    _grow(model, FEW_PIECES)
    assert len(capture()) == FEW_PIECES
    _grow(model, FEW_PIECES + 1)
    assert len(capture()) == 1
    _shrink(model, FEW_PIECES)
    assert len(capture()) == 1
    _shrink(model, FEW_PIECES // 2 + 1)
    assert len(capture()) == 1
    _shrink(model, FEW_PIECES // 2)
    assert len(capture()) == FEW_PIECES // 2
    model.write(BASE, b"and on")
    assert len(capture()) == FEW_PIECES // 2
    walker = repo.walker(captures[0][0])
    for commit, pages in [*captures, *reversed(captures)]:
        assert own_pages(repo.load(commit)) == pages
        assert own_pages(walker.move(commit)) == pages
    assert repo.fsck().clean
    git("fsck", "--full", "--strict")


def test_the_same_chain_elsewhere_is_no_difference(repo: Repository) -> None:
    """Between captures of which one has few pieces and one many, those that are the same are not compared."""
    model = _model()
    _grow(model, FEW_PIECES)
    few = model.capture(repo)
    _grow(model, FEW_PIECES + 1)
    model.write(BASE + 5 * PIECE_SIZE, b"changed")
    many = model.capture(repo)
    first = BASE // PIECE_SIZE
    for one, two in ((few, many), (many, few)):
        assert list(repo.changed_pieces(one, two, 4242)) == [first + 5, first + FEW_PIECES]
        assert len(list(diff(repo.load(one), repo.load(two)))) > 0
    assert repo.memory_id(few, 4242, [first]) == repo.memory_id(many, 4242, [first])
    assert repo.memory_id(few, 4242, [first + 5]) != repo.memory_id(many, 4242, [first + 5])


def test_a_steady_capture_of_a_large_process_writes_small_trees(repo: Repository) -> None:
    """Of many pieces one changes: what leads to it is small."""
    rng = random.Random(1)
    model = Model(size=1000 * PIECE_SIZE)
    _grow(model, 1000)
    model.capture(repo)
    model.write(BASE + rng.randrange(1000) * PIECE_SIZE, b"again")
    before = repo.bytes_written
    model.capture(repo)
    assert repo.bytes_written - before < 4000


def test_a_piece_that_stands_twice_is_refused(repo: Repository) -> None:
    from test_store_safety import _replaced

    model = Model()
    model.write(BASE, b"x")
    commit = model.capture(repo)
    key = repo.show(commit, "proc/4242/memory/7f1234800000/00000000.key0")
    forged = _replaced(repo, commit, ("proc", "4242", "memory", "7f12", "3", "48", "00000000.key0"), key)
    with pytest.raises(HostileImage, match="twice"):
        own_pages(repo.load(forged))


def test_few_bytes_are_read_without_the_rest_of_the_piece(repo: Repository) -> None:
    """Of a damaged piece every quarter that is whole can be read by itself, and the other only fails; whatever was read, all of it comes out right."""
    from test_store_safety import _replaced

    rng = random.Random(5)
    model = Model(size=PIECE_SIZE)
    for quarter in range(3):
        model.write(BASE + quarter * QUARTER_SIZE, rng.randbytes(9000))
    model.capture(repo)
    model.write(BASE + 40, b"changed")
    model.write(BASE + 3 * QUARTER_SIZE, b"new")
    commit = model.capture(repo)

    def expected(address: int, length: int) -> bytes:
        pages = [model.pages.get(page, bytes(4096)) for page in range(address >> 12, (address + length + 4095) >> 12)]
        return b"".join(pages)[address & 4095 :][:length]

    def read(name: str, address: int, length: int) -> bytes:
        memory = repo.load(name).processes[0].memory
        assert memory is not None
        return memory.read(address, length)

    for address in (
        BASE + 38,
        BASE + QUARTER_SIZE + 8000,
        BASE + QUARTER_SIZE - 30,
        BASE + 3 * QUARTER_SIZE,
        BASE + PIECE_SIZE - 64,
    ):
        assert read(commit, address, 64) == expected(address, 64)
    damaged = bytearray(repo.show(commit, "proc/4242/memory/7f1234800000/00000000.key1"))
    damaged[-1] ^= 1
    forged = _replaced(repo, commit, ("proc", "4242", "memory", "7f1234800000", "00000000.key1"), bytes(damaged))
    assert read(forged, BASE + 38, 64) == expected(BASE + 38, 64)
    for address in (BASE + QUARTER_SIZE, BASE + QUARTER_SIZE + 8190):
        with pytest.raises(DamagedImage):
            read(forged, address, 64)
    memory = repo.load(forged).processes[0].memory
    assert memory is not None
    assert memory.read(BASE, 8) == expected(BASE, 8)
    with pytest.raises(DamagedImage):  # what is read again is read as a whole
        memory.read(BASE, 8)
