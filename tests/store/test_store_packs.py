"""A capture that is too large for one pack."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import DiskFull
from vcsimg.image.units import PAGE_SIZE, PIECE_SIZE
from vcsimg.store import Repository
from vcsimg.store.objects import BLOB
from vcsimg.store.pack import PackWriter, pack_entry
from vcsimg.store.packfile import read_index
from vcsimg.store.packseries import PackSeries

Git = Callable[..., str]
PIECES = 6


def _model() -> Model:
    """Six pieces, in each of them 256 KiB that cannot be compressed."""
    model = Model(size=PIECES * PIECE_SIZE)
    noise = random.Random(1)
    for piece in range(PIECES):
        for page in range(64):
            model.write(BASE + piece * PIECE_SIZE + page * PAGE_SIZE, noise.randbytes(PAGE_SIZE))
    return model


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcsimg.store.packseries._LEAST", 300 << 10)


def test_a_large_capture_makes_several_packs(repo: Repository, git: Git) -> None:
    """Each at least half as large as those before, so few; and what git finds in them is whole."""
    model = _model()
    commit = model.capture(repo)
    sizes = [path.stat().st_size for path in repo.path.glob("objects/pack/*.pack")]
    assert 2 <= len(sizes) < PIECES
    assert len(list(repo.path.glob("objects/pack/*.idx"))) == len(sizes)
    assert not list(repo.path.glob("objects/pack/*.keep"))
    assert not list(repo.path.glob("vcsimg/*.tmp"))
    git("fsck", "--full", "--strict")
    assert own_pages(Repository.open(repo.path).load(commit)) == model.content()


def test_an_object_of_an_earlier_pack_is_not_stored_again(repo: Repository) -> None:
    """Equal contents at other addresses, and texts that are equal."""
    pack = PackSeries(repo.path / "objects" / "pack", repo.path / "vcsimg", sync=False)
    noise = [random.Random(number).randbytes(200 << 10) for number in range(4)]
    for data in noise + noise:
        pack.add(BLOB, data, stored=True)
    keeps = pack.finish()
    assert len(keeps) > 1
    assert sum(len(read_index(keep.with_suffix(".idx"))) for keep in keeps) == len(noise)


def test_a_failure_at_the_end_takes_all_packs_away(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs that were ended before the disk was full refer to nothing, and nothing refers to them."""
    first = Model(pid=1).capture(repo, branch="other")
    before = sorted(path.name for path in repo.path.glob("objects/pack/*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vcsimg.store.refs.move", full)
        with pytest.raises(DiskFull):
            _model().capture(repo)
    assert sorted(path.name for path in repo.path.glob("objects/pack/*")) == before
    assert not list(repo.path.glob("vcsimg/*.tmp"))
    assert repo.tip("other") == first
    model = _model()
    assert own_pages(repo.load(model.capture(repo))) == model.content()


def test_a_pack_that_fails_in_the_background_fails_the_capture(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full for the first pack, while the last one, which is small, still finds room."""
    real = PackWriter.finish
    failed: list[PackWriter] = []

    def finish(self: PackWriter) -> Path | None:
        if not failed:
            failed.append(self)
            raise OSError(28, "No space left on device")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(PackWriter, "finish", finish)
        with pytest.raises(DiskFull):
            _model().capture(repo)
    assert not list(repo.path.glob("objects/pack/*"))
    assert not list(repo.path.glob("vcsimg/*.tmp"))
    assert repo.tip("model.4242") is None


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 131071, 300_000])
def test_stored_blocks_are_what_zlib_reads(size: int) -> None:
    """RFC 1951: a stored block holds at most 65,535 bytes."""
    data = random.Random(size).randbytes(size)
    stored = pack_entry(BLOB, data, stored=True).content
    head = next(place for place, byte in enumerate(stored) if not byte & 0x80) + 1
    unpacker = zlib.decompressobj()
    assert unpacker.decompress(stored[head:]) == data
    assert unpacker.eof
    assert not unpacker.unused_data
