"""A repository is plain git: git's own tools check it, clone it, rewrite it, and lose nothing."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.store import Repository

Git = Callable[..., str]


@pytest.fixture
def history(repo: Repository) -> list[tuple[str, dict[int, bytes]]]:
    """Forty captures, with merges in their chains."""
    rng = random.Random(3)
    model = Model()
    model.write(BASE, rng.randbytes(100_000))
    captures = []
    for _ in range(40):
        for _ in range(4):
            model.write(BASE + rng.randrange(3_000_000), rng.randbytes(20))
        captures.append((model.capture(repo), model.content()))
    return captures


def check(repo: Repository, captures: list[tuple[str, dict[int, bytes]]]) -> None:
    for commit, pages in captures:
        assert own_pages(repo.load(commit)) == pages


def test_fsck_and_verify_pack(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git) -> None:
    repo.close()
    assert "error" not in git("fsck", "--full", "--strict")
    packs = list((repo.path / "objects/pack").glob("*.idx"))
    assert packs
    for pack in packs:
        git("verify-pack", pack)
        git("index-pack", "--strict", "-o", repo.path / "check.idx", pack.with_suffix(".pack"))
        assert (repo.path / "check.idx").read_bytes() == pack.read_bytes()
        (repo.path / "check.idx").unlink()
    assert not list((repo.path / "objects/pack").glob("*.keep"))


def test_aggressive_gc_loses_nothing(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git) -> None:
    git("gc", "-q", "--aggressive", "--prune=now")
    check(Repository.open(repo.path), history)
    check(repo, history)


def test_recording_goes_on_after_gc(repo: Repository, git: Git) -> None:
    model = Model()
    model.write(BASE, b"a")
    first = model.capture(repo), model.content()
    git("gc", "-q", "--prune=now")
    model.write(BASE, b"b")
    check(repo, [first, (model.capture(repo), model.content())])


def test_a_shallow_clone_is_enough(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--depth", "1", f"file://{repo.path}", tmp_path / "clone")
    clone = Repository.open(tmp_path / "clone")
    check(clone, history[-1:])
    assert len(list(clone.log())) == 1


def test_a_bundle_carries_all(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git, tmp_path: Path) -> None:
    git("bundle", "create", "-q", tmp_path / "all.bundle", "--all")
    git("clone", "-q", "--bare", tmp_path / "all.bundle", tmp_path / "clone.git")
    check(Repository.open(tmp_path / "clone.git"), history)


def test_push_and_fetch(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git, tmp_path: Path) -> None:
    other = Repository.init(tmp_path / "other")
    git("push", "-q", other.path, "model.4242")
    check(other, history)
    third = Repository.init(tmp_path / "third")
    subprocess.run(["git", "-C", third.path, "fetch", "-q", repo.path, "model.4242:model.4242"], check=True)
    check(third, history)


def test_trailers_are_what_git_takes_for_trailers(repo: Repository, git: Git) -> None:
    model = Model()
    model.capture(repo, message="a message: with a colon\n\n---\nand three dashes\n\nKey: value")
    message = git("log", "-1", "--format=%B")
    parsed = subprocess.run(["git", "interpret-trailers", "--parse"], input=message, capture_output=True, text=True, check=True)
    assert parsed.stdout.splitlines()[0] == "Engine: test"
    assert "Process-Start: 77" in parsed.stdout.splitlines()
    assert "Key" not in repo.capture("HEAD").trailers
    assert git("log", "-1", "--format=%s") == "a message: with a colon\n"


def test_everything_is_for_the_owner_alone(repo: Repository, history: list[tuple[str, dict[int, bytes]]], git: Git) -> None:
    git("gc", "-q")
    wrong = [path for path in [repo.path, *repo.path.rglob("*")] if path.stat().st_mode & 0o077]
    assert wrong == []


def test_git_shows_pages_through_the_text_driver(repo: Repository, git: Git) -> None:
    """`git log -p` says which bytes of which pages changed. The driver is this interpreter's vcsimg.delta."""
    model = Model()
    model.write(BASE, b"a")
    model.capture(repo)
    model.write(BASE + 5, b"b")
    model.capture(repo)
    assert git("config", "diff.vcsimg.textconv").strip() == "vcsimg textconv"
    import sys

    driver = f"{sys.executable} -c 'import sys, vcsimg.delta as d; print(d.describe(open(sys.argv[1], \"rb\").read()))'"
    shown = git("-c", f"diff.vcsimg.textconv={driver}", "log", "-p", "-1")
    assert "+7f1234800000 1 byte from 7f1234800005 to 7f1234800005" in shown
