"""Damage of every kind, at every place: fsck notices it and names captures, and what it says nothing against can be read."""

from __future__ import annotations

import errno
import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest
from recorder import expected
from store_model import BASE, Model, own_pages

from vcsimg.errors import DiskFull, StoreError, VcsimgError
from vcsimg.store import Repository, misleading
from vcsimg.store.failures import translated

Git = Callable[..., str]
History = dict[str, dict[int, bytes]]
RECORDER = Path(__file__).parent / "recorder.py"


@pytest.fixture
def history(repo: Repository) -> History:
    """Two branches, in more than one pack."""
    rng = random.Random(7)
    made: History = {}
    for pid in (4242, 7):
        model = Model(pid=pid)
        for _ in range(6):
            model.write(BASE + rng.randrange(9000), rng.randbytes(40))
            made[model.capture(repo, branch=f"model.{pid}")] = model.content()
    repo.close()
    return made


def check_what_is_left(path: Path, history: History, damage: object = None) -> set[str]:
    """Have fsck find something, and read every capture that it says nothing against. Returns the damaged ones."""
    gc.collect()  # libgit2 shares packs among all that have a repository open, and their indexes were looked at before they were damaged
    try:
        repo = Repository.open(path, sync="none")
        report = repo.fsck()
    except VcsimgError:
        return set(history)
    assert report.findings, damage
    for commit, pages in history.items():
        if commit not in report.damaged:
            try:
                snapshot = repo.load(commit)
                assert own_pages(snapshot, snapshot.processes[0].pid) == pages
            except VcsimgError:
                continue  # its branch, or its commit, is what is damaged
    return report.damaged


def test_a_flipped_bit_anywhere_is_found_by_fsck(repo: Repository, history: History) -> None:
    """In packs, their indexes, and references: a bit at some sixty places."""
    rng = random.Random(2)
    files = [*sorted(repo.path.glob("objects/pack/*.pack")), *sorted(repo.path.glob("objects/pack/*.idx"))]
    places = [(path, rng.randrange(path.stat().st_size)) for path in files for _ in range(60 // len(files))]
    places += [(path, rng.randrange(40)) for path in sorted(repo.path.glob("refs/heads/*"))]
    for path, place in places:
        data = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        check_what_is_left(repo.path, history, (path, place))
        path.write_bytes(data)
    assert repo.fsck().clean


def test_a_truncated_pack_is_found_and_the_others_are_whole(repo: Repository, history: History) -> None:
    """Cut off at any length, to nothing too; captures in other packs are read, and recording goes on."""
    (Model(pid=1)).capture(repo, branch="safe")
    for path in sorted(repo.path.glob("objects/pack/*.pack"), key=lambda path: path.stat().st_size)[-1:]:
        data = path.read_bytes()
        path.chmod(0o600)
        for length in (0, 11, 30, len(data) // 2, len(data) - 21, len(data) - 1):
            path.write_bytes(data[:length])
            check_what_is_left(repo.path, history)
            with Repository.open(repo.path, sync="none") as fresh:
                assert fresh.load("safe").processes[0].pid == 1
                model = Model(pid=2)
                model.write(BASE, b"%d" % length)
                assert own_pages(fresh.load(model.capture(fresh, branch=f"new-{length}")), 2) == model.content()
        path.write_bytes(data)
    assert Repository.open(repo.path).fsck().clean


def test_a_missing_object_is_named_with_the_captures_that_need_it(repo: Repository, history: History, git: Git) -> None:
    """Each object in turn, of whatever kind."""
    for pack in sorted(repo.path.glob("objects/pack/*.pack")):
        moved = pack.rename(repo.path / "vcsimg" / pack.name)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as stream:
            subprocess.run(["git", "-C", repo.path, "unpack-objects", "-q"], stdin=stream, check=True)
    objects = sorted(repo.path.glob("objects/??/*"))
    assert len(objects) > 40
    for path in objects[::6]:
        away = path.rename(repo.path / "vcsimg" / "away")
        damaged = check_what_is_left(repo.path, history)
        oid = path.parent.name + path.name
        kind = "commit" if oid in history else "file"
        if kind == "file":
            users = {commit for commit in history if oid in _objects_of(git, commit, away, path)}
            assert damaged == users, oid
        away.rename(path)
    assert Repository.open(repo.path).fsck().clean


def _objects_of(git: Git, commit: str, away: Path, path: Path) -> set[str]:
    """Ids of trees and files of a capture."""
    away.rename(path)
    try:
        root = git("rev-parse", f"{commit}^{{tree}}").strip()
        return {root, *(line.split()[2] for line in git("ls-tree", "-r", "-t", commit).splitlines())}
    finally:
        path.rename(away)


@pytest.mark.parametrize(("bit", "many"), [(0x10, 1 << 18), (0x80, 1 << 18), (0x10, 1), (0x80, 1)])
def test_an_index_that_leads_beyond_its_pack_is_refused_and_made_anew_for_fsck(
    repo: Repository, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bit: int, many: int
) -> None:
    """libgit2 would crash. Of a pack that is whole nothing is lost; of one that is not, what is whole is salvaged."""
    monkeypatch.setattr(misleading, "_MANY", many)  # of many objects it is found out in another way
    index = max(repo.path.glob("objects/pack/*.idx"), key=lambda path: path.stat().st_size)
    pack = index.with_suffix(".pack")
    data = bytearray(index.read_bytes())
    count = int.from_bytes(data[8 + 1020 : 8 + 1024], "big")
    for number in range(count):
        data[8 + 1024 + 24 * count + 4 * number] ^= bit
    index.chmod(0o600)
    index.write_bytes(data)
    damaged = Repository.open(repo.path, sync="none")
    with pytest.raises(StoreError, match=f"{index.name} is damaged") as caught:
        damaged.load(next(iter(history)))
    assert f"git index-pack {pack}" in str(caught.value.remedy)
    with pytest.raises(StoreError, match="damaged"):
        Model(pid=3).capture(damaged, branch="new")
    report = damaged.fsck()
    assert [finding.message for finding in report.findings] == [f"objects/pack/{index.name}: it leads beyond the end of its pack"]
    assert (report.checked, report.damaged) == (len(history), set())
    assert damaged.salvage(tmp_path / "all", report) == len(history)
    content = bytearray(pack.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    report = Repository.open(repo.path).fsck()
    assert report.damaged
    saved = damaged.salvage(tmp_path / "some", report)
    assert saved < len(history)
    whole = Repository.open(tmp_path / "some")
    assert whole.fsck().clean
    for commit in [capture.id for capture in whole.log(all=True)] if saved else []:
        if commit in history:
            snapshot = whole.load(commit)
            assert own_pages(snapshot, snapshot.processes[0].pid) == history[commit]


@pytest.mark.parametrize("call", ["os.write", "os.rename", "pathlib.Path.rename", "os.fsync"])
def test_a_disk_that_is_full_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The first call fails, then the second, until the capture passes: nothing that was committed is lost, and the next one is whole."""
    repo = Repository.init(tmp_path / "repo")
    model = Model()
    model.write(BASE, b"before")
    before = model.capture(repo)
    pages = model.content()
    module, _, name = call.rpartition(".")
    owner = Path if module == "pathlib.Path" else os
    real = getattr(owner, name)
    for nth in range(1, 40):
        calls = 0

        def fails(*arguments: object, nth: int = nth, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **named)

        model.write(BASE + 4096, b"attempt %d" % nth)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            try:
                model.capture(repo)
            except DiskFull:
                assert repo.tip("model.4242") == before
        assert own_pages(repo.load(before)) == pages
        if calls < nth:
            break
        if repo.tip("model.4242") == before:
            assert not list(repo.path.glob("vcsimg/*.tmp"))
    else:
        raise AssertionError("it never passed")
    assert own_pages(repo.load("model.4242")) == model.content()
    repo.close()
    assert repo.fsck().clean


def test_two_recorders_at_once(repo: Repository) -> None:
    """Of two branches of one repository, each with its own helper that consolidates: everything acknowledged is there."""
    recorders = [
        subprocess.Popen([sys.executable, RECORDER, repo.path, seed], stdout=subprocess.PIPE, text=True) for seed in ("1", "2")
    ]
    said: list[tuple[str, int]] = []
    try:
        for _ in range(70):
            for recorder in recorders:
                assert recorder.stdout is not None
                commit, step = recorder.stdout.readline().split()
                said.append((commit, int(step)))
    finally:
        for recorder in recorders:
            recorder.kill()
            recorder.communicate()
    fresh = Repository.open(repo.path, sync="none")
    for commit, step in said:
        memory = fresh.load(commit).processes[0].memory
        assert memory is not None
        assert memory.read(BASE, 4096) == expected(step)
    report = fresh.fsck()
    assert report.clean
    assert report.checked >= len(said)


def test_a_branch_that_somebody_else_has_moved_is_refused(repo: Repository) -> None:
    """Two writers of one branch who do not hold its lock: the second is told, and nothing of the first is lost."""
    model = Model()
    model.write(BASE, b"first")
    model.capture(repo)
    other = Model()
    other.tip, other.stored, other.pages = model.tip, dict(model.stored), dict(model.pages)
    model.write(BASE, b"mine")
    mine = model.capture(repo)
    other.write(BASE, b"theirs")
    with pytest.raises(StoreError, match=r"model\.4242"):
        other.capture(Repository.open(repo.path, sync="none"))
    assert repo.tip("model.4242") == mine
    assert own_pages(repo.load(mine)) == model.content()
    assert repo.fsck().clean


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("failed to write chunk: No space left on device", "no space left on the device"),
        ("could not write to 'x': Disk quota exceeded", "the disk quota is used up"),
        ("failed to write chunk: File too large", "a file must not become as large as it would"),
    ],
)
def test_libgit2_finds_no_room(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=reason), translated(tmp_path):
        raise pygit2.GitError(text)
