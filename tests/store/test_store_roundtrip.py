"""What is committed comes back, whatever happened to the process in between."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_model import BASE, Model, own_pages

from vcsimg.errors import RepositoryBusy, UnknownRevision
from vcsimg.image.pages import PieceChange
from vcsimg.image.records import Record
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import FileContent, MappedFile
from vcsimg.image.units import PAGE_SIZE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import Repository, branch_name, memory_writer

writes = st.lists(
    st.tuples(st.integers(0, 2 * PIECE_SIZE - 64), st.binary(min_size=1, max_size=64) | st.just(bytes(PAGE_SIZE))), max_size=6
)


@given(st.lists(st.tuples(writes, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_every_capture_equals_the_model(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[list[tuple[int, bytes]], bool, bool, bool, int]],
) -> None:
    """Random changes; the old content known or not, the whole image or changes, by one writer or a new one each time."""
    path = tmp_path_factory.mktemp("repo") / "repo"
    repo = Repository.init(path, sync="none")
    model = Model()
    captures = []
    for changed, know_old, whole, reopen, extra in steps:
        for offset, content in changed:
            model.write(BASE + offset, content)
        if reopen:
            repo.close()
            repo = Repository.open(path, sync="none")
        captures.append((model.capture(repo, know_old=know_old, whole=whole, extra=extra), model.content()))
    for commit, pages in captures:
        assert own_pages(repo.load(commit)) == pages
    repo.close()


def test_a_long_history_stays_readable_and_its_chains_short(repo: Repository) -> None:
    """Hundreds of captures of hot and of scattered pages: merges and re-bases keep every chain bounded."""
    rng = random.Random(1)
    model = Model()
    model.write(BASE, rng.randbytes(40 * PAGE_SIZE))
    captures = []
    for step in range(300):
        model.write(BASE + 8, step.to_bytes(4, "little"))
        model.write(BASE + PIECE_SIZE + rng.randrange(60) * PAGE_SIZE, rng.randbytes(300))
        captures.append((model.capture(repo), model.content()))
    for commit, pages in rng.sample(captures, 20):
        assert own_pages(repo.load(commit)) == pages
    for commit, _ in captures:
        for piece in ("7f1234800000", "7f1235000000"):
            assert len(repo.show(commit, f"proc/4242/memory/{piece}").splitlines()) < 90


def test_where_others_wait_one_thread_stores_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    model = Model(size=6 * PIECE_SIZE)
    for number in range(6):
        model.write(BASE + number * PIECE_SIZE, rng.randbytes(100 * PAGE_SIZE))
    pools: list[object] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, prefix: str) -> None:
            super().__init__(workers, prefix)
            pools.append(self)

    monkeypatch.setattr(memory_writer, "ThreadPoolExecutor", Pool)
    commits = []
    for crowded in (False, True):
        model.tip = None
        with Repository.init(tmp_path / f"{crowded}", sync="none") as repo:
            snapshot = replace(model.snapshot(whole=True), crowded=crowded)
            snapshot.facts.time = 1_700_000_000  # type: ignore[union-attr]
            commits.append(repo.show(repo.commit(snapshot, branch="model.4242", parents=[]), "proc/4242/memory"))
        assert len(pools) == 1
    assert commits[0] == commits[1] != ""


def test_a_sleeping_process_has_the_same_tree(repo: Repository, git) -> None:
    model = Model()
    model.write(BASE, b"x")
    one = model.capture(repo)
    model.registers["rip"] -= 1
    model.count -= 1
    two = model.capture(repo)
    assert git("rev-parse", f"{one}^{{tree}}") == git("rev-parse", f"{two}^{{tree}}")


def test_unchanged_text_and_pieces_are_not_written_again(repo: Repository, git) -> None:
    """A capture adds the path to what changed, and nothing else."""
    model = Model()
    model.write(BASE, b"x")
    model.write(BASE + PIECE_SIZE, b"y")
    one = model.capture(repo)
    model.write(BASE + 100, b"z")
    two = model.capture(repo)
    changed = git("diff", "--name-only", one, two).split()
    assert changed == ["proc/4242/memory/7f1234800000/00000001.xor", "proc/4242/threads/4242"]
    assert list(repo.changed_pieces(one, two, 4242)) == [BASE // PIECE_SIZE]


def test_text_comes_back(repo: Repository) -> None:
    """Registers, XSAVE area, sections, map, mapped files, host, facts."""
    model = Model()
    snapshot = model.snapshot()
    process = snapshot.processes[0]
    region = Region(0x400000, 0x402000, "r-xp", 0, "08:01", 12, "/bin/with space", ("rd",))
    process = replace(
        process,
        regions=RegionMap([region, *process.regions]),
        mapped=(MappedFile("08:01", 12, "/bin/with space", 5000, "ab" * 32, "0badcafe"), MappedFile("08:01", 13, "/x", 1, None)),
        unreadable=frozenset({0x400000}),
        state={"status": (Record.make("name", value="a b\nc"),), "empty": ()},
    )
    snapshot = replace(snapshot, processes=(process,), host=(Record.make("kernel", release="6.18"),))
    commit = repo.commit(snapshot, branch="b", parents=[], message="hello\n\nbody")
    loaded = repo.load(commit)
    back = loaded.processes[0]
    assert back.regions == process.regions
    assert back.threads == process.threads
    assert back.mapped == process.mapped
    assert back.unreadable == process.unreadable
    assert back.state == {"status": process.state["status"]}
    assert (back.pid, back.parent, back.name) == (4242, 1, "model")
    assert loaded.host == snapshot.host
    assert loaded.facts == replace(snapshot.facts, time=float(int(snapshot.facts.time)))
    capture = repo.capture(commit)
    assert (capture.subject, capture.body, capture.trailers["Engine"]) == ("hello", "body", "test")


def test_a_process_tree_and_a_process_that_ends(repo: Repository, git) -> None:
    one, two = Model(pid=10), Model(pid=11)
    one.write(BASE, b"one")
    two.write(BASE, b"two")
    both = replace(one.snapshot(), processes=(one.snapshot().processes[0], two.snapshot().processes[0]))
    first = repo.commit(both, branch="tree", parents=[])
    loaded = repo.load(first)
    assert [process.pid for process in loaded.processes] == [10, 11]
    assert own_pages(loaded, 11) == two.content()
    alone = replace(one.snapshot(), processes=(replace(one.snapshot().processes[0], changes=()),), base=first)
    second = repo.commit(alone, branch="tree", parents=[first])
    assert [process.pid for process in repo.load(second).processes] == [10]
    assert own_pages(repo.load(second), 10) == one.content()
    assert "proc/11" not in git("ls-tree", "-r", "--name-only", second)


def test_content_outside_every_region_is_dropped(repo: Repository) -> None:
    """Regions vanish wholly, partly within a piece, and unnamed by the capturer: no garbage stays behind."""
    model = Model()
    for offset in (0, 3 * PAGE_SIZE, PIECE_SIZE):
        model.write(BASE + offset, b"x")
    model.capture(repo)
    model.regions = RegionMap([Region(BASE, BASE + 2 * PAGE_SIZE, "rw-p", 0, "00:00", 0, "[heap]")])
    commit = model.capture(repo)
    assert list(own_pages(repo.load(commit))) == [BASE // PAGE_SIZE]
    model.regions = RegionMap([])
    commit = model.capture(repo)
    assert own_pages(repo.load(commit)) == {}


def test_mapped_files_are_stored_once(repo: Repository, tmp_path: Path) -> None:
    """Content of several chunks; a second branch shares it without reading the file again; an unmapped one goes."""
    import hashlib

    content = random.Random(2).randbytes(100) * 50000
    sha256 = hashlib.sha256(content).hexdigest()
    region = Region(0x400000, 0x400000 + (len(content) + 4095 & ~4095), "r--p", 0, "08:01", 9, "/lib")
    mapped = (MappedFile("08:01", 9, "/lib", len(content), sha256),)

    def snapshot(read):
        model = Model()
        made = model.snapshot()
        process = replace(made.processes[0], regions=RegionMap([region, *model.regions]), mapped=mapped)
        return replace(made, processes=(process,), files={sha256: FileContent(sha256, len(content), None, read)})

    first = repo.commit(snapshot(lambda at, n: content[at : at + n]), branch="a", parents=[])

    def unread(at, n):
        raise AssertionError("read again")

    second = repo.commit(snapshot(unread), branch="b", parents=[])
    for commit in (first, second):
        memory = repo.load(commit).processes[0].memory
        assert memory.read(0x400000 + 3_000_000, 100_000) == content[3_000_000:3_100_000]
    assert repo.show(first, f"files/{sha256[:2]}/{sha256}/info") == b"file size=5000000 sha256=" + sha256.encode() + b"\n"
    third = repo.commit(replace(Model().snapshot(), base=None), branch="b", parents=[second])
    assert b"files" not in repo.show(third, "/")


def test_a_file_that_changed_while_it_was_stored_is_noted(repo: Repository) -> None:
    model = Model()
    snapshot = model.snapshot()
    process = replace(snapshot.processes[0], mapped=(MappedFile("08:01", 9, "/lib", 3, "00" * 32),))
    snapshot = replace(snapshot, processes=(process,), files={"00" * 32: FileContent("00" * 32, 3, None, lambda at, n: b"abc")})
    commit = repo.commit(snapshot, branch="a", parents=[])
    assert "changed while it was stored" in repo.capture(commit).trailers["Note"]
    assert b"files" not in repo.show(commit, "/")


def test_a_branch_from_a_restored_capture(repo: Repository) -> None:
    """What-if: a new branch from an old capture; both lines stay whole."""
    model = Model()
    model.write(BASE, b"a")
    old = model.capture(repo)
    model.write(BASE, b"b")
    new = model.capture(repo)
    fork = Model()
    fork.tip, fork.stored, fork.pages = old, {BASE >> 12: b"a".ljust(4096, b"\0")}, {BASE >> 12: b"c".ljust(4096, b"\0")}
    other = fork.capture(repo, branch="what-if")
    assert own_pages(repo.load(new)) == model.content()
    assert own_pages(repo.load(other)) == fork.content()
    assert repo.capture(other).parents == (old,)
    assert {branch.name: branch.tip for branch in repo.branches()} == {"model.4242": new, "what-if": other}


def test_log_and_names(repo: Repository) -> None:
    model = Model()
    commits = [model.capture(repo, message=f"number {step}") for step in range(4)]
    assert [capture.id for capture in repo.log()] == commits[::-1]
    assert [capture.subject for capture in repo.log(limit=2)] == ["number 3", "number 2"]
    assert [capture.id for capture in repo.log(commits[1])] == commits[1::-1]
    assert next(repo.log(all=True)).branch == "model.4242"
    assert repo.resolve("model.4242~2") == commits[1]
    assert repo.resolve(commits[0][:10]) == commits[0]
    with pytest.raises(UnknownRevision):
        repo.resolve("nothing")
    assert branch_name("my server/1", 7, 0) == "my-server-1.7.19700101-000000"


def test_the_branch_of_a_process_instance(repo: Repository) -> None:
    """The same pid with another start time, or after a reboot, is another process."""
    model = Model()
    name = branch_name("model", 4242, 1)
    model.capture(repo, branch=name)
    assert repo.branch_of(4242, 77, "boot") == name
    assert repo.branch_of(4242, 78, "boot") is None
    assert repo.branch_of(4242, 77, "other") is None
    assert repo.branch_of(424, 77, "boot") is None


def test_two_writers_of_one_branch(repo: Repository) -> None:
    """The second to commit is told; the first one's capture stays."""
    model = Model()
    first = model.capture(repo)
    other = Repository.open(repo.path, sync="none")
    second = model.capture(other)
    model.tip = first
    with pytest.raises(RepositoryBusy):
        model.capture(repo)
    assert repo.tip("model.4242") == second
    model.tip = second
    third = model.capture(repo)
    assert repo.tip("model.4242") == third


def test_a_piece_named_twice_is_a_mistake_of_the_capturer(repo: Repository) -> None:
    model = Model()
    snapshot = model.snapshot()
    change = PieceChange(BASE >> PIECE_SHIFT, np.array([0], np.uint16), np.ones((1, PAGE_SIZE), np.uint8), np.array([True]))
    snapshot = replace(snapshot, processes=(replace(snapshot.processes[0], changes=[change, change]),))
    with pytest.raises(ValueError, match="twice"):
        repo.commit(snapshot, branch="a", parents=[])
    assert repo.branches() == []


def test_old_content_that_is_wrong_is_looked_up_instead(repo: Repository) -> None:
    """A capturer's shadow may be stale; the store notices by the hashes."""
    model = Model()
    model.write(BASE, b"a")
    model.capture(repo)
    model.write(BASE, b"b")
    model.stored[BASE >> 12] = b"wrong".ljust(4096, b"\0")
    commit = model.capture(repo)
    assert own_pages(repo.load(commit)) == model.content()


def head(repo: Repository) -> str:
    return (repo.path / "HEAD").read_text().removeprefix("ref: ").strip()


def test_a_branch_started_at_a_capture(repo: Repository) -> None:
    """A restored process begins where it was captured; its first own capture has that one as parent."""
    model = Model()
    model.write(BASE, b"a")
    commit = model.capture(repo)
    assert repo.start_branch("restored.7.x", commit, 7, 123, "boot") == "restored.7.x"
    assert repo.start_branch("restored.7.x", commit, 7, 124, "boot") == "restored.7.x.2", "the pid was used twice within a second"
    assert [repo.branch_of(7, ticks, "boot") for ticks in (123, 124, 125)] == ["restored.7.x", "restored.7.x.2", None]
    assert head(repo) == "refs/heads/model.4242"
    model.write(BASE, b"b")
    assert repo.capture(model.capture(repo, branch="restored.7.x")).parents == (commit,)
    assert head(repo) == "refs/heads/restored.7.x"
    assert repo.tip("model.4242") == commit


@pytest.mark.parametrize("known", [True, False], ids=["in step", "unknown"])
def test_what_was_drafted_is_there_for_the_capture_that_follows(repo: Repository, known: bool) -> None:
    """Also for one that does not know what it held before, and for a region that was unmapped between the two."""
    model = Model(size=3 * PIECE_SIZE)
    for number in range(3):
        model.write(BASE + number * PIECE_SIZE + 5000, b"drafted %d" % number * 300)
    first = model.snapshot()
    with repo.draft("model.4242") as draft:
        draft.add(4242, model.regions, list(first.processes[0].changes or ()))
        model.stored, model.tip = dict(model.pages), "drafted"
        model.write(BASE + 5100, b"since")
        model.regions = RegionMap([Region(BASE, BASE + 2 * PIECE_SIZE + 4096, "rw-p", 0, "00:00", 0, "[heap]", ("rd", "wr"))])
        model.pages = {page: data for page, data in model.pages.items() if page << 12 < BASE + 2 * PIECE_SIZE}
        changes = [change for change in model.snapshot(know_old=known).processes[0].changes or () if change.own.any()]
        last = model.snapshot()
        snapshot = replace(last, base=None, processes=(replace(last.processes[0], changes=iter(changes)),))
        commit = repo.commit(snapshot, branch="model.4242", parents=[], draft=draft)
    assert own_pages(repo.load(commit)) == model.content()
    assert repo.fsck().clean
