"""Repositories of older formats: read, checked, walked, compared, and gone on with."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from old_history import BASE, BRANCH, CAPTURES, LIBRARY, steps, with_library
from store_model import own_pages
from test_store_safety import _replaced

from vcsimg.delta import PieceState
from vcsimg.delta.encode import keyframes
from vcsimg.errors import HostileImage
from vcsimg.history import diff
from vcsimg.store import Repository
from vcsimg.store.layout import FORMAT_TEXT

DATA = Path(__file__).parent / "data"
FORMATS = [1, 2, 3]


@pytest.fixture(params=FORMATS, ids=[f"format {number}" for number in FORMATS])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """A repository of an older format, as the package of its time left it."""
    number = request.param
    repo = Repository.clone(str(DATA / f"format-{number}.bundle"), tmp_path / "old")
    subprocess.run(["git", "-C", repo.path, "config", "vcsimg.format", str(number)], check=True)
    repo = Repository.open(repo.path, sync="none")
    assert repo.show(BRANCH, "format") == f"vcsimg {number}\n".encode() != FORMAT_TEXT
    return repo


def _ids(repo: Repository) -> list[str]:
    """Oldest first."""
    return [capture.id for capture in repo.log(BRANCH)][::-1]


def _git(repo: Repository, *words: str) -> str:
    return subprocess.run(["git", "-C", repo.path, *words], check=True, capture_output=True, text=True).stdout


def test_every_capture_is_what_was_captured(old: Repository) -> None:
    ids = _ids(old)
    assert len(ids) == CAPTURES
    for commit, model in zip(ids, steps(), strict=True):
        snapshot = old.load(commit)
        assert own_pages(snapshot) == model.content()
        assert snapshot.processes[0].regions == with_library(model.snapshot()).processes[0].regions
        assert snapshot.processes[0].memory is not None
        assert snapshot.processes[0].memory.read(0x10000000, len(LIBRARY)) == LIBRARY
    report = old.fsck()
    assert report.clean
    assert report.checked == CAPTURES


def test_walking_and_comparing(old: Repository) -> None:
    ids = _ids(old)
    walker = old.walker(ids[0])
    for commit, model in zip(ids, steps(), strict=True):
        assert own_pages(walker.move(commit)) == model.content()
    for one, two in ((3, 4), (29, 30), (39, 40), (0, CAPTURES - 1)):
        a, b = ids[one], ids[two]
        changes = list(diff(old.load(a), old.load(b)))
        assert changes
        assert changes == list(diff(old.load(a), old.load(b), partial(old.changed_pieces, a, b)))


@pytest.mark.parametrize("how", [{}, {"know_old": False}, {"whole": True}], ids=["in step", "joining", "whole"])
def test_its_history_goes_on_in_the_newest_format(old: Repository, how: dict[str, bool]) -> None:
    """Captures on top of it, of which the first may not know what there was before; git finds all in order."""
    model = list(steps())[-1]
    model.tip, model.stored = old.tip(BRANCH), dict(model.pages)
    before = _ids(old)
    captures = []
    for step in range(60):
        model.write(BASE + 100 + step, b"%d" % step)
        captures.append((model.capture(old, **({} if step else how)), model.content()))
    for commit, pages in captures:
        assert old.show(commit, "format") == FORMAT_TEXT
        assert own_pages(old.load(commit)) == pages
    assert _ids(old) == [*before, *(commit for commit, _ in captures)]
    walker = old.walker(captures[-1][0])
    for commit in reversed(before[-3:]):
        walker.move(commit)
    assert own_pages(walker.snapshot) == own_pages(old.load(before[-3]))
    old.close()
    assert old.fsck().clean
    _git(old, "fsck", "--full", "--strict")
    assert len(_git(old, "log", "--format=%h", BRANCH).splitlines()) == CAPTURES + 60
    assert _git(old, "diff", "--stat", before[-1], captures[0][0])


def test_it_can_be_thinned_and_collected(old: Repository) -> None:
    """What prune and gc keep of it stays what it was."""
    pages = own_pages(old.load(BRANCH))
    done = old.prune(keep_last=10)
    assert (done.kept, done.removed) == (10, CAPTURES - 10)
    old.gc()
    assert own_pages(old.load(BRANCH)) == pages
    assert old.fsck().clean


def test_pages_beyond_the_end_of_an_old_piece_are_refused(old: Repository) -> None:
    (path,) = (
        path for path in _git(old, "ls-tree", "-r", "--name-only", f"{BRANCH}~{CAPTURES - 1}").split() if path.endswith(".key")
    )
    (key,) = keyframes(BASE, np.array([600], np.uint16), np.ones((1, 4096), np.uint8), PieceState())
    forged = _replaced(old, old.resolve(f"{BRANCH}~{CAPTURES - 1}"), tuple(path.split("/")), key.bytes())
    with pytest.raises(HostileImage, match="beyond its end"):
        own_pages(old.load(forged))


def test_the_commands_read_it(old: Repository, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        command = [sys.executable, "-m", "vcsimg", *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    repo = ("--repo", old.path)
    assert len(run("log", *repo, "-n", "20", BRANCH).splitlines()) >= 20
    assert "7f1234400000" in run("diff", *repo, f"{BRANCH}~1", BRANCH)
    run("checkout", BRANCH, "--raw", tmp_path / "raw", *repo)
    assert list((tmp_path / "raw").rglob("7f1234400000*"))
