"""Upkeep of a long history: consolidation, fsck, salvage, pruning."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import DamagedImage, RepositoryBusy
from vcsimg.store import Repository, committer, consolidate, gitdelta
from vcsimg.store.packfile import BadPack, PackFile

Git = Callable[..., str]
History = list[tuple[str, dict[int, bytes]]]


def record(repo: Repository, model: Model, count: int, branch: str = "model.4242") -> History:
    rng = random.Random(count)
    captures = []
    for _ in range(count):
        model.write(BASE + rng.randrange(3_000_000), rng.randbytes(30))
        captures.append((model.capture(repo, branch=branch), model.content()))
    return captures


def check(repo: Repository, captures: History) -> None:
    for commit, pages in captures:
        assert own_pages(repo.load(commit)) == pages


def packs(repo: Repository) -> list[Path]:
    return list((repo.path / "objects/pack").glob("*.pack"))


def test_packs_stay_few_and_nothing_is_lost(repo: Repository, git: Git) -> None:
    """At every moment of a long recording; a reader that was there all the time goes on reading."""
    model = Model()
    early = record(repo, model, 20)
    reader = Repository.open(repo.path)
    check(reader, early[:1])
    for _ in range(12):
        early += record(repo, model, 20)
        assert len(packs(repo)) <= 50
    check(reader, early[::7])
    repo.close()
    assert len(packs(repo)) < 20
    check(repo, early[::7])
    git("fsck", "--full", "--strict")


def test_consolidated_packs_are_valid_and_smaller(repo: Repository, git: Git) -> None:
    """Trees and texts become deltas against the capture before; git reads them, depth bounded."""
    model = Model()
    captures = record(repo, model, 60)
    repo.close()
    largest = max(packs(repo), key=lambda path: path.stat().st_size)
    shown = git("verify-pack", "-v", largest.with_suffix(".idx"))
    chains = [int(line.split()[3].rstrip(":")) for line in shown.splitlines() if line.startswith("chain length")]
    assert 1 <= max(chains) <= 50
    git("repack", "-a", "-d", "-q")
    check(Repository.open(repo.path), captures)


def test_consolidation_copes_with_packs_that_git_made(repo: Repository, git: Git, tmp_path: Path) -> None:
    """A push completes a thin pack with deltas by id; a gc makes one with its own deltas."""
    model = Model()
    captures = record(repo, model, 6)
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", "--bare", repo.path, copy], check=True)
    captures += record(repo, model, 6)
    receive = "git -c receive.unpackLimit=1 receive-pack"
    git("push", "-q", "--thin", f"--receive-pack={receive}", copy, "model.4242")
    subprocess.run(["git", "-C", copy, "gc", "-q"], check=True)
    other = Repository.open(copy, sync="none")
    model.tip = captures[-1][0]
    captures += record(other, model, 20)
    other.close()
    check(other, captures)
    subprocess.run(["git", "-C", copy, "fsck", "--full", "--strict"], check=True, capture_output=True)


def test_large_packs_are_joined_as_they_are(repo: Repository, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some thousand objects packs are put behind one another; two that share an object are merged entry by entry."""
    monkeypatch.setattr(committer, "Helper", Mock())  # the real one would merge them, too, at the same time
    model = Model()
    captures = record(repo, model, 40)
    monkeypatch.setattr(consolidate, "_ENTRYWISE", 10)
    for turn in range(2):
        consolidate.merge(sorted(packs(repo)), repo.path / "objects/pack", repo.path / "vcsimg", sync=False)
        assert len(packs(repo)) == 1
        git("fsck", "--full", "--strict")
        git("verify-pack", packs(repo)[0].with_suffix(".idx"))
        check(Repository.open(repo.path), captures)
        for twin in "ab":
            record(repo, Model(pid=7 + turn), 2, branch=f"{twin}.{turn}")
        captures += record(repo, model, 3)


def test_a_kept_pack_is_left_alone(repo: Repository) -> None:
    record(repo, Model(), 1)
    (pack,) = packs(repo)
    pack.with_suffix(".keep").touch()
    model = Model(pid=7)
    record(repo, model, 9, branch="other")
    repo.close()
    assert pack.exists()


def test_a_damaged_pack_is_not_copied_on(repo: Repository) -> None:
    """Consolidation checks what it copies: the damage stays where it is, with its index, for fsck to name."""
    record(repo, Model(), 7)
    victim = packs(repo)[0]
    victim.chmod(0o600)
    data = bytearray(victim.read_bytes())
    data[40] ^= 1
    victim.write_bytes(data)
    with pytest.raises(BadPack):
        consolidate.merge(packs(repo), repo.path / "objects/pack", repo.path / "vcsimg", sync=False)
    assert len(packs(repo)) == 7


def test_an_index_that_lies_is_refused(repo: Repository) -> None:
    record(repo, Model(), 1)
    (pack,) = packs(repo)
    index = pack.with_suffix(".idx")
    index.chmod(0o600)
    index.write_bytes(index.read_bytes()[:-60])
    with pytest.raises(BadPack):
        PackFile(pack)


def test_git_deltas_come_back() -> None:
    rng = random.Random(8)
    for _ in range(200):
        old = [rng.randbytes(rng.randrange(200)).replace(b"\n", b"") + b"\n" for _ in range(rng.randrange(30))]
        new = [rng.choice(old) if old and rng.random() < 0.8 else rng.randbytes(rng.randrange(300)) + b"\n" for _ in range(30)]
        base, target = b"".join(old), b"".join(new)
        assert gitdelta.apply(base, gitdelta.make(base, target, tree=False)) == target
    for _ in range(200):
        lines = [b"register name=r%d value=%#x" % (number, rng.getrandbits(30)) for number in range(8)]
        base = b"\n".join(lines)
        lines[rng.randrange(8)] = rng.randbytes(rng.randrange(40)).replace(b"\n", b"")
        lines[3] = lines[3][:-2] + b"x"
        target = b"\n".join(lines) + b"\n" * rng.randrange(2)
        assert gitdelta.apply(base, gitdelta.make(base, target, tree=False)) == target
    big = bytes(70_000) + b"\n"
    assert gitdelta.apply(big, gitdelta.make(big, big + b"x", tree=False)) == big + b"x"


def test_fsck_of_a_whole_repository(repo: Repository) -> None:
    captures = record(repo, Model(), 40)
    seen = []
    report = repo.fsck(lambda done, total: seen.append((done, total)))
    assert report.clean
    assert report.checked == len(captures)
    assert seen[-1] == (40, 40)


def _break_page(repo: Repository, commit: str) -> None:
    """Flip a bit in the payload of the newest delta of a capture, inside its pack."""
    names = repo.show(commit, "proc/4242/memory/7f1234800000").decode().split()
    blob = repo.show(commit, f"proc/4242/memory/7f1234800000/{names[-1]}")
    for pack in packs(repo):
        data = pack.read_bytes()
        place = data.find(blob)
        if place >= 0:
            pack.chmod(0o600)
            pack.write_bytes(data[: place + len(blob) - 1] + bytes([data[place + len(blob) - 1] ^ 4]) + data[place + len(blob) :])
            return
    raise AssertionError("the blob stands in no pack")


def test_fsck_names_damage_and_salvage_saves_the_rest(repo: Repository, tmp_path: Path) -> None:
    """The piece is named with capture, process, region; captures before the damage are whole, and are saved."""
    model = Model()
    rng = random.Random(1)
    captures = []
    for _ in range(6):
        model.write(BASE + rng.randrange(3) * 4096, rng.randbytes(3000))
        captures.append((model.capture(repo), model.content()))
    _break_page(repo, captures[3][0])
    damaged = Repository.open(repo.path, sync="none")
    report = damaged.fsck()
    assert report.damaged == {commit for commit, _ in captures[3:]}
    named = [finding for finding in report.findings if finding.capture == captures[3][0]]
    assert named
    assert f"capture {captures[3][0][:12]} process 4242 region {BASE:x}" in named[0].message
    with pytest.raises(DamagedImage):
        own_pages(damaged.load(captures[4][0]))
    assert damaged.salvage(tmp_path / "saved", report) == 3
    saved = Repository.open(tmp_path / "saved")
    check(saved, captures[:3])
    assert saved.fsck().clean
    assert [capture.id for capture in saved.log()] == [commit for commit, _ in reversed(captures[:3])]


def test_pruning_keeps_what_it_says(repo: Repository, git: Git) -> None:
    """Tips, the newest, tagged ones and forks stay; content is what it was; the rest is gone from the disk."""
    model = Model()
    captures = record(repo, model, 30)
    git("tag", "precious", captures[7][0])
    fork = Model()
    fork.tip, fork.stored, fork.pages = captures[11][0], dict(captures[11][1]), dict(captures[11][1])
    forked = record(repo, fork, 3, branch="fork.4242")
    done = repo.prune(keep_last=4)
    assert done.removed == 33 - done.kept
    assert done.kept == 4 + 3 + 1 + 1
    assert done.freed > 0
    line = [capture.id for capture in repo.log("model.4242")]
    kept = [*captures[-4:][::-1], captures[11], captures[7]]
    assert len(line) == len(kept)
    for commit, (_, pages) in zip(line, kept, strict=True):
        assert own_pages(repo.load(commit)) == pages
    check(repo, [(repo.resolve("precious"), captures[7][1])])
    assert own_pages(repo.load("fork.4242")) == forked[-1][1]
    git("fsck", "--full", "--strict")
    assert git("count-objects", "-v").splitlines()[0] == "count: 0"
    model.tip = repo.tip("model.4242")
    check(repo, record(repo, model, 3))


def test_pruning_by_time(repo: Repository) -> None:
    """One capture in each slot of time; the model's clock ticks a second a capture."""
    model = Model()
    record(repo, model, 25)
    done = repo.prune(keep_every=10)
    times = [int(capture.time) // 10 for capture in repo.log()]
    assert done.kept == len(times)
    assert len(times) == len(set(times)) or times[0] == times[1]


def test_pruning_waits_for_no_recorder(repo: Repository) -> None:
    record(repo, Model(), 2)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with repo.lock("model.4242"):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(RepositoryBusy):
        repo.prune(keep_last=1)
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert repo.prune(keep_last=1).kept == 1
    for fd in (*ready, *done):
        os.close(fd)
