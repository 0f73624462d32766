"""What the user's settings of git, other branches, and what runs beside can do to a repository."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import KeyMissing, StoreError
from vcsimg.store import Repository, leftovers
from vcsimg.store.gc import repack
from vcsimg.store.identity import identity
from vcsimg.store.leftovers import Owner

Git = Callable[..., str]


def record(repo: Repository, count: int = 3, branch: str = "model.4242") -> Model:
    model = Model()
    for step in range(count):
        model.write(BASE + step * 5000, b"secret %d of %s" % (step, branch.encode()))
        model.capture(repo, branch=branch)
    return model


def names(repo: Repository) -> list[str]:
    return [branch.name for branch in repo.branches()]


@pytest.fixture
def sealed(tmp_path: Path) -> Repository:
    made = Repository.init(tmp_path / "sealed", sync="none", key_file=tmp_path / "key")
    record(made)
    made.close()
    return made


def test_fetch_deletes_no_recording_whatever_the_user_has_configured(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, setting in enumerate(("fetch.prune", "fetch.pruneTags")):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", setting)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", "true")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    record(repo)
    mine = Repository.init(tmp_path / "mine", sync="none")
    record(mine, branch="mine.1")
    mine.fetch(str(repo.path))
    assert names(mine) == ["mine.1", "model.4242"]


def _plain_branch(path: Path, name: str, text: str) -> None:
    """A branch whose commit has a file `format` of that text, made by somebody without the key."""
    git = lambda given, *words: (  # noqa: E731
        subprocess.run(["git", "-C", path, *words], input=given, capture_output=True, text=True, check=True).stdout.strip()
    )
    blob = git(text, "hash-object", "-w", "--stdin")
    tree = git(f"100644 blob {blob}\tformat\n", "mktree")
    git("", "update-ref", f"refs/heads/{name}", git("", "-c", "user.name=x", "-c", "user.email=x", "commit-tree", "-m", "x", tree))


@pytest.mark.parametrize("text", ["vcsimg 4\n", "something else\n"])
def test_a_clone_is_sealed_whatever_else_is_there(sealed: Repository, tmp_path: Path, text: str) -> None:
    """Who keeps the encrypted repository could otherwise have its clones write in the clear, by a branch that comes first."""
    _plain_branch(sealed.path, "0", text)
    copy = Repository.clone(str(sealed.path), tmp_path / "copy", key_file=tmp_path / "key")
    model = Model(pid=5)
    model.write(BASE, b"secret")
    model.capture(copy, branch="mine.5")
    copy.close()
    raw = subprocess.run(["git", "-C", copy.path, "cat-file", "blob", "mine.5:format"], capture_output=True, check=True).stdout
    assert raw.startswith(b"VXE")


def test_a_key_for_what_is_not_encrypted_is_refused(repo: Repository, tmp_path: Path) -> None:
    record(repo)
    (tmp_path / "key").write_text("00" * 64)
    with pytest.raises(StoreError, match="not encrypted"):
        Repository.clone(str(repo.path), tmp_path / "copy", key_file=tmp_path / "key")
    assert not (tmp_path / "copy").exists()


def test_what_is_saved_of_a_sealed_repository_is_sealed(
    sealed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sealed.salvage(tmp_path / "saved", sealed.fsck()) == 3
    saved = Repository.open(tmp_path / "saved")
    assert len(own_pages(saved.load("model.4242"))) == 3
    model = Model()
    model.write(BASE, b"more")
    model.capture(saved, branch="more.1")
    saved.close()
    (tmp_path / "key").unlink()
    with pytest.raises(KeyMissing):
        Repository.open(tmp_path / "saved").load("more.1")


def test_a_bundle_that_nobody_could_read_is_refused(repo: Repository, tmp_path: Path) -> None:
    record(repo)
    copy = Repository.clone(str(repo.path), tmp_path / "copy", depth=2)
    with pytest.raises(StoreError, match="only the newest"):
        copy.bundle(tmp_path / "some.bundle")
    assert not (tmp_path / "some.bundle").exists()


def test_what_is_saved_of_a_shallow_clone_is_shallow(repo: Repository, tmp_path: Path) -> None:
    model = record(repo, 4)
    copy = Repository.clone(str(repo.path), tmp_path / "copy", depth=2)
    assert copy.salvage(tmp_path / "saved", copy.fsck()) == 2
    saved = Repository.open(tmp_path / "saved")
    assert own_pages(saved.load("model.4242")) == model.content()
    assert len(list(saved.log())) == 2
    assert saved.fsck().clean


def test_nothing_is_saved_into_what_is_there(repo: Repository, tmp_path: Path) -> None:
    record(repo)
    other = Repository.init(tmp_path / "other")
    model = record(other)
    with pytest.raises(StoreError, match="already"):
        repo.salvage(other.path, repo.fsck())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(StoreError, match="not empty"):
        repo.salvage(tmp_path / "folder", repo.fsck())
    assert (tmp_path / "folder" / "file").exists()
    assert own_pages(other.load("model.4242")) == model.content()


def test_nothing_is_left_of_what_could_not_be_saved(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(repo)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text('#!/bin/sh\ncase "$*" in *" repack "*) exit 1;; esac\nPATH=${PATH#*:} exec git "$@"\n')
    (tmp_path / "bin" / "git").chmod(0o755)
    report = repo.fsck()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(StoreError):
        repo.salvage(tmp_path / "saved", report)
    assert not (tmp_path / "saved").exists()


def test_pruning_after_a_gc_of_gits_leaves_nothing_that_git_complains_of(repo: Repository, git: Git) -> None:
    git("config", "core.logAllRefUpdates", "always")
    git("config", "gc.writeCommitGraph", "true")
    record(repo, 12)
    subprocess.run(["git", "-C", repo.path, "gc", "-q"], check=True)
    assert (repo.path / "objects" / "info" / "commit-graph").exists()
    assert repo.prune(keep_last=2).removed == 10
    git("fsck", "--full", "--strict")
    assert git("rev-list", "--all", "--reflog", "--count").strip() == "2"
    assert repo.fsck().clean


def test_more_branches_than_files_may_be_open_can_be_pruned(repo: Repository, git: Git) -> None:
    model = record(repo)
    text = "".join(f"create refs/heads/b{number} {model.tip}\n" for number in range(300))
    subprocess.run(["git", "-C", repo.path, "update-ref", "--stdin"], input=text, text=True, check=True)
    words = (
        "import resource, sys; from vcsimg.store import Repository\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "print(Repository.open(sys.argv[1]).prune(keep_last=1).kept)"
    )
    done = subprocess.run([sys.executable, "-c", words, repo.path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_repack_that_fails_leaves_no_room_taken(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(repo)
    packs = repo.path / "objects" / "pack"
    (packs / "tmp_pack_others").write_text("of somebody else")
    (tmp_path / "git").write_text(f'#!/bin/sh\ncase "$*" in *" repack "*) : > {packs}/tmp_pack_1234;; esac; exit 128\n')
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError):
        repack(repo.path)
    assert [file.name for file in packs.glob("tmp_*")] == ["tmp_pack_others"]


def test_a_branch_that_leads_nowhere_is_passed_over(repo: Repository, git: Git) -> None:
    record(repo)
    git("symbolic-ref", "refs/heads/alias", "refs/heads/gone")
    assert names(repo) == ["model.4242"]
    assert len(list(repo.log())) == 3


def test_a_tree_as_format_is_no_capture(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    git = lambda given, *words: (  # noqa: E731
        subprocess.run(["git", "-C", bare, *words], input=given, capture_output=True, text=True, check=True).stdout.strip()
    )
    inner = git("", "mktree")
    tree = git(f"040000 tree {inner}\tformat\n", "mktree")
    git("", "update-ref", "refs/heads/main", git("", "-c", "user.name=x", "-c", "user.email=x", "commit-tree", "-m", "x", tree))
    with pytest.raises(StoreError, match="not one of vcsimg"):
        Repository.discover(tmp_path, bare)


def test_a_clock_before_the_epoch(repo: Repository) -> None:
    """Git would refuse to copy such a commit."""
    assert identity(repo._opened.git, -5.0).split()[-2] == "0"


def test_another_namespace_of_the_shell_is_not_pushed_to(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(repo)
    there = Repository.init(tmp_path / "there")
    monkeypatch.setenv("GIT_NAMESPACE", "foo")
    repo.push(str(there.path), confirmed=True)
    assert names(there) == ["model.4242"]
    assert names(Repository.clone(str(repo.path), tmp_path / "copy")) == ["model.4242"]


@pytest.mark.parametrize("lock", ["refs/heads/model.4242.lock", "HEAD.lock"])
def test_a_capture_waits_for_a_lock_of_gits(repo: Repository, lock: str) -> None:
    """`git pack-refs` and other recorders hold them for a moment."""
    model = record(repo)
    subprocess.run(["git", "-C", repo.path, "symbolic-ref", "HEAD", "refs/heads/other"], check=True)
    path = repo.path / lock
    path.touch()
    timer = threading.Timer(0.2, path.unlink)
    timer.start()
    model.write(BASE, b"more")
    model.capture(repo)
    timer.join()
    assert own_pages(repo.load("model.4242")) == model.content()


def test_an_owner_that_lives_is_not_taken_for_dead(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cleans up comes between the making of an owner's file and its lock, and is slow."""
    flock, unlink = fcntl.flock, Path.unlink
    found, made = threading.Event(), threading.Event()
    cleaner = threading.Thread(target=leftovers.remove, args=(repo.path,))

    def slow_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("owner-") and threading.current_thread() is cleaner:
            found.set()
            made.wait(0.3)
        unlink(path, missing_ok)

    def late_lock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not found.is_set():
            cleaner.start()
            assert found.wait(10)
        flock(fd, operation)

    monkeypatch.setattr(Path, "unlink", slow_unlink)
    monkeypatch.setattr(leftovers.fcntl, "flock", late_lock)
    owner = Owner(repo.path / "vcsimg")
    made.set()
    cleaner.join()
    assert (repo.path / "vcsimg" / f"owner-{owner.token}").exists()
