"""Who reads all of a repository does so from a copy that stands still while others record, consolidate and collect."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.store import Repository, consolidate, leftovers
from vcsimg.store.objects import BLOB
from vcsimg.store.pack import PackWriter
from vcsimg.store.packfile import read_index
from vcsimg.store.still import still

CAPTURES = 60


@pytest.fixture
def captures(repo: Repository) -> list[tuple[str, dict[int, bytes]]]:
    """A history in some packs."""
    rng = random.Random(3)
    model = Model()
    made = []
    for _ in range(CAPTURES):
        model.write(BASE + rng.randrange(3_000_000), rng.randbytes(30))
        made.append((model.capture(repo), model.content()))
    repo.close()  # its helper, which consolidates too
    return made


def _churn(repository: Path) -> None:
    """Put one pack after another together with a new one, so that none keeps its name for long."""
    packs, work = repository / "objects" / "pack", repository / "vcsimg"
    count = 0
    while True:
        writer = PackWriter(packs, work, sync=False)
        writer.add(BLOB, b"%d" % count)
        keep = writer.finish()
        assert keep is not None
        keep.unlink()
        count += 1
        others = sorted(pack.path for pack in consolidate.candidates(packs) if pack.path.stem != keep.stem)
        consolidate.merge([others[count % len(others)], keep.with_suffix(".pack")], packs, work, sync=False)


@pytest.fixture
def churning(repo: Repository, captures: list[tuple[str, dict[int, bytes]]]) -> Iterator[None]:
    """Another process consolidates all the time."""
    child = os.fork()
    if child == 0:
        try:
            _churn(repo.path)
        finally:
            os._exit(1)
    yield
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_fsck_finds_nothing_missing_while_packs_come_and_go(repo: Repository, churning: None) -> None:
    for _ in range(5):
        report = Repository.open(repo.path).fsck()
        assert report.findings == []
        assert report.checked == CAPTURES


def test_no_object_slips_through_while_packs_come_and_go(
    repo: Repository, captures: list[tuple[str, dict[int, bytes]]], request: pytest.FixtureRequest
) -> None:
    """Every pack has its index, and all objects are in one of them."""
    wanted = _objects(repo.path)
    request.getfixturevalue("churning")
    for _ in range(100):
        with still(repo.path) as folder:
            assert folder != repo.path
            assert wanted <= _objects(folder)


def _objects(folder: Path) -> set[bytes]:
    found: set[bytes] = set()
    for path in (folder / "objects" / "pack").glob("*.idx"):
        if path.with_suffix(".pack").exists():
            ids = read_index(path).ids.tobytes()
            found.update(ids[start : start + 20] for start in range(0, len(ids), 20))
    return found


def test_fsck_checks_what_was_there_when_it_began(repo: Repository, captures: list[tuple[str, dict[int, bytes]]]) -> None:
    """Even if all of it goes away meanwhile."""

    def remove(*_: int) -> None:
        for path in repo.path.glob("objects/pack/*"):
            path.unlink()

    report = repo.fsck(remove)
    assert report.findings == []
    assert report.checked == CAPTURES
    assert not Repository.open(repo.path).fsck().clean


def test_it_has_what_was_there(repo: Repository, captures: list[tuple[str, dict[int, bytes]]]) -> None:
    """Loose references and packed ones, loose objects, tags; whatever becomes of the repository."""
    git = ["git", "-C", str(repo.path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "pack-refs", "--all"], check=True)
    subprocess.run([*git, "branch", "loose", captures[7][0]], check=True)
    subprocess.run([*git, "tag", "-a", "-m", "a tag is a loose object", "here", captures[8][0]], check=True)
    listed = subprocess.run([*git, "show-ref"], check=True, capture_output=True, text=True).stdout
    with still(repo.path) as folder:
        assert folder.parent == repo.path / "vcsimg"
        leftovers.remove(repo.path)  # what another writer does when it begins: we live
        for path in [*repo.path.glob("objects/*/*"), *repo.path.glob("refs/heads/*")]:
            path.unlink(missing_ok=True)
        done = subprocess.run(["git", "-C", folder, "show-ref"], check=True, capture_output=True, text=True)
        assert done.stdout == listed
        subprocess.run(["git", "-C", folder, "fsck", "--full", "--strict"], check=True, capture_output=True)
        for commit, pages in captures[::9]:
            assert own_pages(Repository(folder).load(commit)) == pages
    assert not folder.exists()


def test_what_a_killed_reader_leaves_is_removed(repo: Repository, captures: list[tuple[str, dict[int, bytes]]]) -> None:
    code = f"""
import os, pathlib
from vcsimg.store.still import still
with still(pathlib.Path({str(repo.path)!r})):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert list(repo.path.glob("vcsimg/*.tmp/HEAD"))
    leftovers.remove(repo.path)
    assert not list(repo.path.glob("vcsimg/*.tmp"))


def test_where_none_can_be_made_the_repository_itself_is_read(
    repo: Repository, captures: list[tuple[str, dict[int, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with still(repo.path) as folder:
        assert folder == repo.path
    assert repo.fsck().clean
    assert not list(repo.path.glob("vcsimg/*.tmp"))


def test_objects_that_are_elsewhere_are_found(
    repo: Repository, captures: list[tuple[str, dict[int, bytes]]], tmp_path: Path
) -> None:
    """A repository that borrows objects from another one, by a path relative to its own."""
    other = tmp_path / "other"
    shutil.copytree(repo.path, other)
    for path in other.glob("objects/pack/*"):
        path.unlink()
    (other / "objects" / "info").mkdir(exist_ok=True)
    (other / "objects" / "info" / "alternates").write_text("# a comment\n../../repo/objects\n")
    with still(other) as folder:
        assert own_pages(Repository(folder).load(captures[3][0])) == captures[3][1]
    assert Repository.open(other).fsck().clean
