"""Copies elsewhere: over files, git's own protocol and smart HTTP, whole, shallow and light."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from tests.servers import git_daemon, http_server
from vcsimg.errors import StoreError
from vcsimg.store import Repository

History = list[tuple[str, dict[int, bytes]]]


@pytest.fixture
def history(repo: Repository) -> History:
    model = Model()
    captures = []
    for step in range(12):
        model.write(BASE + step * 5000, b"capture %d" % step)
        captures.append((model.capture(repo), model.content()))
    repo.close()
    return captures


@pytest.fixture
def http_url(repo: Repository, history: History) -> Iterator[str]:
    with http_server(repo.path) as url:
        yield url


@pytest.fixture
def daemon_url(repo: Repository, history: History) -> Iterator[str]:
    with git_daemon(repo.path) as url:
        yield url


def check(repo: Repository, captures: History) -> None:
    for commit, pages in captures:
        assert own_pages(repo.load(commit)) == pages


@pytest.mark.parametrize("transport", ["file", "http_url", "daemon_url"])
def test_a_full_clone(repo: Repository, history: History, tmp_path: Path, transport: str, request: pytest.FixtureRequest) -> None:
    url = str(repo.path) if transport == "file" else request.getfixturevalue(transport)
    copy = Repository.clone(url, tmp_path / "copy")
    check(copy, history)
    assert [capture.id for capture in copy.log()] == [commit for commit, _ in reversed(history)]
    assert copy.fsck().clean


def test_a_shallow_clone(repo: Repository, history: History, tmp_path: Path) -> None:
    copy = Repository.clone(str(repo.path), tmp_path / "copy", depth=1)
    assert len(list(copy.log())) == 1
    check(copy, history[-1:])


@pytest.mark.parametrize("transport", ["file", "http_url"])
def test_a_light_clone_fetches_what_it_looks_at(
    repo: Repository, history: History, tmp_path: Path, transport: str, request: pytest.FixtureRequest
) -> None:
    """The whole log is there, contents come with the captures that are loaded; git's own gc takes nothing away."""
    url = str(repo.path) if transport == "file" else request.getfixturevalue(transport)
    copy = Repository.clone(url, tmp_path / "copy", light=True)
    assert len(list(copy.log())) == len(history)
    assert copy.complete(history[5][0]) > 0
    check(copy, [history[5], history[2]])
    subprocess.run(["git", "-C", copy.path, "gc", "-q", "--prune=now"], check=True)
    fresh = Repository.open(copy.path)
    check(fresh, history)


def test_a_light_clone_can_be_pruned_and_packed(repo: Repository, history: History, tmp_path: Path) -> None:
    copy = Repository.clone(str(repo.path), tmp_path / "copy", light=True)
    check(copy, history[-1:])
    copy.gc()
    pruned = copy.prune(keep_last=3)
    assert (pruned.kept, pruned.removed) == (3, len(history) - 3)
    kept = [capture.id for capture in copy.log()]
    check(copy, [(commit, pages) for commit, (_, pages) in zip(kept, reversed(history), strict=False)])
    copy.gc()
    report = copy.fsck()
    assert report.clean
    assert (report.checked, report.absent) == (3, 0)


def test_new_captures_are_fetched_and_pushed(repo: Repository, history: History, tmp_path: Path) -> None:
    copy = Repository.clone(str(repo.path), tmp_path / "copy")
    model = Model()
    model.tip, model.stored, model.pages = history[-1][0], dict(history[-1][1]), dict(history[-1][1])
    model.write(BASE, b"newer")
    commit = model.capture(repo)
    copy.fetch()
    check(copy, [(commit, model.content())])
    other = Model(pid=9)
    other.write(BASE, b"from the copy")
    back = other.capture(copy, branch="other.9")
    copy.push(branches=["other.9"], confirmed=True)
    assert own_pages(repo.load(back), 9) == other.content()


def test_the_first_push_to_a_place_must_be_confirmed(repo: Repository, history: History, tmp_path: Path) -> None:
    target = Repository.init(tmp_path / "target")
    with pytest.raises(StoreError, match="never pushed") as caught:
        repo.push(str(target.path))
    assert "--yes" in str(caught.value.remedy)
    assert target.branches() == []
    repo.push(str(target.path), confirmed=True)
    check(target, history)
    repo.push(str(target.path))


def test_a_push_over_http(repo: Repository, history: History, http_url: str, tmp_path: Path) -> None:
    copy = Repository.clone(http_url, tmp_path / "copy")
    model = Model(pid=9)
    model.write(BASE, b"from afar")
    commit = model.capture(copy, branch="other.9")
    copy.push(branches=["other.9"], confirmed=True)
    assert own_pages(repo.load(commit), 9) == model.content()


def test_a_bundle(repo: Repository, history: History, tmp_path: Path) -> None:
    repo.bundle(tmp_path / "all.bundle")
    assert (tmp_path / "all.bundle").stat().st_mode & 0o077 == 0
    check(Repository.clone(str(tmp_path / "all.bundle"), tmp_path / "copy"), history)


def test_a_remote_that_is_not_there(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="git fetch failed"):
        Repository.clone(str(tmp_path / "nothing"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(StoreError, match="git fetch failed"):
        repo.fetch("nowhere")
