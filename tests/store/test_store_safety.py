"""Bad luck: writers killed, disks full, bits flipped, packs cut off. What was acknowledged stays, and errors say what is wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorder import expected
from store_model import BASE, Model, own_pages

import vcsimg
from vcsimg.errors import (
    DamagedImage,
    DiskFull,
    HostileImage,
    ImageError,
    NewerFormat,
    RepositoryBusy,
    RepositoryMissing,
    RepositoryReadOnly,
    StoreError,
)
from vcsimg.image.units import PIECE_SIZE
from vcsimg.store import Repository, leftovers
from vcsimg.store.layout import FORMAT
from vcsimg.store.objects import BLOB, COMMIT, TREE, Entry, format_commit, format_tree
from vcsimg.store.pack import PackWriter

Git = Callable[..., str]
RECORDER = Path(__file__).parent / "recorder.py"


def test_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Twenty rounds of kill -9 in one repository: every id that was printed rebuilds, and git's fsck is clean."""
    repo = Repository.init(tmp_path / "repo", sync="none")
    rng = random.Random(4)
    acknowledged: list[tuple[str, int]] = []
    for seed in range(20):
        recorder = subprocess.Popen([sys.executable, RECORDER, repo.path, str(seed)], stdout=subprocess.PIPE, text=True)
        assert recorder.stdout is not None
        wanted = rng.randrange(1, 40)
        lines = [recorder.stdout.readline() for _ in range(wanted)]
        time.sleep(rng.random() * 0.02)
        recorder.send_signal(signal.SIGKILL)
        lines += recorder.stdout.readlines()
        recorder.wait()
        recorder.stdout.close()
        acknowledged += [(line.split()[0], int(line.split()[1])) for line in lines if line.endswith("\n")]
    repo = Repository.open(repo.path, sync="none")
    for commit, step in acknowledged:
        memory = repo.load(commit).processes[0].memory
        assert memory is not None
        assert memory.read(BASE, 4096) == expected(step)
    Model(pid=1).capture(repo, branch="next")
    repo.close()
    # The helper of the last recorder may have outlived it by the merge that it was at.
    for _ in range(1000):
        left = [*repo.path.glob("vcsimg/*.tmp"), *repo.path.glob("objects/pack/*.keep"), *repo.path.glob("vcsimg/owner-*")]
        if not left:
            break
        time.sleep(0.01)
    assert left == []
    done = subprocess.run(["git", "-C", repo.path, "fsck", "--full", "--strict"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_kill_before_the_reference_moved_leaves_the_old_state(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """All objects are there, the branch is not: the next writer cleans up, and the capture can be made again."""
    model = Model()
    first = model.capture(repo)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("vcsimg.store.refs.move", lambda *_, **__: os._exit(9))
        model.write(BASE, b"x")
        model.capture(repo)
    os.waitpid(child, 0)
    assert list(repo.path.glob("objects/pack/*.keep"))
    again = Repository.open(repo.path, sync="none")
    assert again.tip("model.4242") == first
    model.write(BASE, b"y")
    commit = model.capture(again)
    assert own_pages(again.load(commit)) == model.content()
    assert not list(repo.path.glob("objects/pack/*.keep"))


def test_files_of_a_writer_that_lives_are_left_alone(repo: Repository) -> None:
    """Another process's unfinished pack, and its .keep: they go when it does, not before. A .keep of the user's stays."""
    model = Model()
    model.capture(repo)
    (pack,) = repo.path.glob("objects/pack/*.pack")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        owner = leftovers.owner(repo.path / "vcsimg")
        owner.unfinished()
        owner.keep(pack.with_suffix(".keep"))
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    kept = pack.with_name("pack-" + "0" * 40 + ".keep")
    kept.touch()
    Model(pid=1).capture(Repository.open(repo.path, sync="none"), branch="a")
    leftovers.remove(repo.path)
    assert len(list(repo.path.glob("vcsimg/*.tmp"))) == 1
    assert pack.with_suffix(".keep").exists()
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    leftovers.remove(repo.path)
    assert not list(repo.path.glob("vcsimg/*.tmp"))
    assert not pack.with_suffix(".keep").exists()
    assert kept.exists()
    assert pack.exists()
    for fd in (*ready, *done):
        os.close(fd)


def test_a_kill_while_git_has_the_reference_locked(repo: Repository) -> None:
    """libgit2's NAME.lock stays behind; the same branch can be recorded on, and git can move it. Other locks are left alone."""
    model = Model()
    model.capture(repo)
    lock = repo.path / "refs/heads/model.4242.lock"
    child = os.fork()
    if child == 0:
        with leftovers.owner(repo.path / "vcsimg").moving("refs/heads/model.4242", "HEAD"):
            lock.touch()
            os._exit(9)
    os.waitpid(child, 0)
    other = repo.path / "refs/heads/other.lock"
    other.touch()
    model.write(BASE, b"x")
    commit = model.capture(Repository.open(repo.path, sync="none"))
    assert not lock.exists()
    assert other.exists()
    assert own_pages(repo.load(commit)) == model.content()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 6 MiB; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    """The capture fails and says so; those before are whole; when there is room again, recording goes on."""
    repo = Repository.init(small_disk / "repo")
    model = Model()
    good = []
    rng = random.Random(5)

    def record() -> None:
        for _ in range(20):
            model.write(BASE, rng.randbytes(1_000_000))
            good.append((model.capture(repo), model.content()))

    with pytest.raises(DiskFull):
        record()
    assert good
    for commit, pages in good:
        assert own_pages(repo.load(commit)) == pages
    model.write(BASE, bytes(1_000_000))
    model.write(BASE, b"small")
    filler = small_disk / "filler"
    try:
        filler.write_bytes(bytes(8 << 20))
    except OSError:
        pass
    with pytest.raises(DiskFull):
        model.capture(repo)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    commit = model.capture(repo)
    assert own_pages(repo.load(commit)) == model.content()
    repo.close()
    subprocess.run(["git", "-C", repo.path, "fsck", "--full", "--strict"], check=True, capture_output=True)


def test_a_read_only_repository_can_be_read(as_nobody: list[str]) -> None:
    """Another user's repository, readable and not writable: load works, commit says what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        with Repository.init(Path(folder) / "repo", sync="none") as repo:
            model = Model()
            model.write(BASE, b"secret")
            model.capture(repo)
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        code = f"""
import pygit2, sys
sys.path[:0] = {[str(RECORDER.parent), str(Path(vcsimg.__file__).parent.parent)]!r}
from store_model import BASE, Model
from vcsimg.errors import RepositoryReadOnly
from vcsimg.store import Repository
pygit2.settings.owner_validation = False
repo = Repository.open({str(repo.path)!r})
print(repo.load("HEAD").processes[0].memory.read(BASE, 6))
try:
    Model(pid=1).capture(repo, branch="other")
except RepositoryReadOnly as error:
    print("read only")
"""
        command = [*as_nobody, sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": "/nonexistent"})
    assert done.stdout.splitlines() == ["b'secret'", "read only"], done.stderr


def test_a_repository_of_another_user_is_named_as_such(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a repository away")
    repo = Repository.init(tmp_path / "repo")
    for path in [repo.path, *repo.path.rglob("*")]:
        os.chown(path, 65534, 65534)
    with pytest.raises(StoreError, match="not owned") as caught:
        Repository.open(repo.path)
    assert "safe.directory" in str(caught.value.remedy)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryMissing):
        Repository.open(tmp_path)
    with pytest.raises(RepositoryMissing):
        Repository.discover(tmp_path / "deep", tmp_path / "nothing")


def test_discovery_goes_upward_and_passes_repositories_of_source(tmp_path: Path) -> None:
    """From a folder inside a source checkout, the .vcsimg next to it is found, not the .git."""
    repo = Repository.init(tmp_path / ".vcsimg")
    source = tmp_path / "project"
    subprocess.run(["git", "init", "-q", source], check=True)
    (source / "deep").mkdir()
    assert Repository.discover(source / "deep").path == repo.path


def test_init_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        Repository.init(tmp_path / "full")
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "git"], check=True)
    with pytest.raises(StoreError, match="not one of vcsimg"):
        Repository.init(tmp_path / "git")
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StoreError):
        Repository.init(tmp_path / "plain")


def test_two_recorders_of_one_branch(repo: Repository) -> None:
    """The second is told who the first is; when that one is killed, the lock is free."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with repo.lock("b"):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(RepositoryBusy) as caught, repo.lock("b"):
        pass
    assert caught.value.owner == child
    with repo.lock("other"):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with repo.lock("b"):
        pass
    for fd in (*ready, *done):
        os.close(fd)


def _pack_of(repo: Repository) -> Path:
    (pack,) = repo.path.glob("objects/pack/*.pack")
    pack.chmod(0o600)
    return pack


def test_a_flipped_bit_is_never_returned_as_data(repo: Repository) -> None:
    """Every byte of a small pack is damaged in turn: what is read is either right, or an error that says where."""
    model = Model()
    model.write(BASE, b"some content that is long enough to be worth something " * 20)
    commit = model.capture(repo)
    good = own_pages(repo.load(commit))
    threads = repo.load(commit).processes[0].threads
    pack = _pack_of(repo)
    data = pack.read_bytes()
    noticed = 0
    for place in range(12, len(data) - 20, 7):
        pack.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        fresh = Repository.open(repo.path)
        try:
            loaded = fresh.load(commit)
            assert own_pages(loaded) == good
            assert loaded.processes[0].threads == threads
        except (ImageError, StoreError):
            noticed += 1
    assert noticed > len(data) // 7 // 2


def test_damage_is_named_by_capture_process_region_and_page(repo: Repository, git: Git) -> None:
    """A page whose content does not fit its hash, in objects that git finds in order."""
    model = Model()
    model.write(BASE + 4096, b"x")
    commit = model.capture(repo)
    blob = bytearray(repo.show(commit, "proc/4242/memory/7f1234800000/00000000.key0"))
    blob[34] ^= 1  # the page's hash
    with pytest.raises(DamagedImage) as caught:
        own_pages(repo.load(_forged(repo, commit, bytes(blob))))
    assert "process 4242" in str(caught.value)
    assert "capture " in str(caught.value)


def _forged(repo: Repository, commit: str, blob: bytes) -> str:
    """A copy of a capture whose only piece has another keyframe."""
    return _replaced(repo, commit, ("proc", "4242", "memory", "7f1234800000", "00000000.key0"), blob)


def _replaced(repo: Repository, commit: str, path: tuple[str, ...], data: bytes | None) -> str:
    """A copy of a capture with one file replaced, added, or removed."""
    import pygit2

    git = pygit2.Repository(str(repo.path))
    writer = PackWriter(repo.path / "objects/pack", repo.path / "vcsimg", sync=False)

    def rebuild(tree: pygit2.Tree | None, rest: tuple[str, ...]) -> bytes:
        entries = {
            str(entry.name): Entry(isinstance(entry, pygit2.Tree), bytes(entry.id.raw))
            for entry in (tree if tree is not None else ())
        }
        if len(rest) == 1:
            entries.pop(rest[0], None)
            if data is not None:
                entries[rest[0]] = Entry(False, writer.add(BLOB, data))
        else:
            child = tree[rest[0]] if tree is not None and rest[0] in tree else None
            entries[rest[0]] = Entry(True, rebuild(child, rest[1:]))  # type: ignore[arg-type]
        return writer.add(TREE, format_tree(entries))

    root = rebuild(git[commit].peel(pygit2.Tree), path)
    forged = writer.add(COMMIT, format_commit(root, [], "a <b> 1 +0000", "a <b> 1 +0000", "forged\n")).hex()
    keep = writer.finish()
    assert keep is not None
    keep.unlink()
    return forged


MEMORY = ("proc", "4242", "memory")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (("format",), b"something else\n"),
        (("format",), None),
        (("tree",), b"process pid=0 parent=1\n"),
        (("tree",), b"process pid=7 parent=1\n"),
        (("tree",), b""),
        (("tree",), b"process pid=4242 parent=1\nprocess pid=4242 parent=1\n"),
        (("proc", "4242", "map", "000000000000"), b"1000-2000 rw-p\n"),
        (("proc", "4242", "map", "000000000000"), b"\xff"),
        (("proc", "4242", "map", "x"), b""),
        (("proc", "4242", "threads", "0"), b""),
        (("proc", "4242", "threads", "4242"), b"register name=rip value=0x10000000000000000\n"),
        (("proc", "4242", "threads", "4242"), b"register name=nothing value=1\n"),
        (("proc", "4242", "threads", "4242"), b"xsave-size bytes=99999999999\n"),
        (("proc", "4242", "threads", "4242"), b"xsave-size bytes=64\nxsave offset=60 data=0000000000\n"),
        (("proc", "4242", "mapped"), b"file device=1:1 inode=1 size=1 sha256=zz path=a\n"),
        ((*MEMORY, "7f12", "3", "44", "00000000.key0"), b""),
        ((*MEMORY, "7f12", "3", "x"), b""),
        ((*MEMORY, "07f12", "3", "48", "00000000.key0"), b""),
        ((*MEMORY, "7f1234800000", "00000001.key0"), b""),
        ((*MEMORY, "7f1234800000", "00000001.xor"), b""),
        ((*MEMORY, "7f1234800000", "00000001.patch"), b""),
        ((*MEMORY, "7f1234800000", "name"), b""),
        ((*MEMORY, "7f1234800000", "00000000.key0"), b""),
        ((*MEMORY, "7f1234800000", "00000000.key0"), None),
        ((*MEMORY, "7f1234800000", "00000000.key1"), None),
        ((*MEMORY, "7f1234800000", "00000000.key"), b""),
        ((*MEMORY, "7f1234800000", "00000000.key4"), b""),
    ],
)
def test_hostile_trees_are_refused(repo: Repository, path: tuple[str, ...], data: bytes | None) -> None:
    """Well-formed git objects that no vcsimg would write: an error, never a crash, never a wrong image."""
    model = Model()
    model.write(BASE, b"x")
    model.write(BASE + 4096 * 600, b"y")
    forged = _replaced(repo, model.capture(repo), path, data)
    with pytest.raises(ImageError):
        own_pages(repo.load(forged))


def test_a_newer_format_is_called_newer(repo: Repository) -> None:
    commit = Model().capture(repo)
    with pytest.raises(NewerFormat):
        repo.load(_replaced(repo, commit, ("format",), b"vcsimg %d\n" % (FORMAT + 1)))
    subprocess.run(["git", "-C", repo.path, "config", "vcsimg.format", str(FORMAT + 1)], check=True)
    with pytest.raises(NewerFormat):
        Repository.open(repo.path)


def test_a_blob_of_another_piece_is_refused(repo: Repository) -> None:
    model = Model()
    model.write(BASE, b"x")
    model.write(BASE + PIECE_SIZE, b"y")
    commit = model.capture(repo)
    other = repo.show(commit, "proc/4242/memory/7f1235000000/00000000.key0")
    with pytest.raises(HostileImage):
        own_pages(repo.load(_forged(repo, commit, other)))


def test_a_keyframe_of_another_quarter_is_refused(repo: Repository) -> None:
    model = Model()
    model.write(BASE, b"x")
    model.write(BASE + 4096 * 600, b"y")
    commit = model.capture(repo)
    other = repo.show(commit, "proc/4242/memory/7f1234800000/00000000.key1")
    with pytest.raises(HostileImage, match="another quarter"):
        own_pages(repo.load(_forged(repo, commit, other)))


def test_a_missing_object(repo: Repository) -> None:
    """A capture whose pack is gone is refused with its id; others stay readable."""
    model = Model()
    model.write(BASE, b"x" * 5000)
    first = model.capture(repo)
    (old,) = repo.path.glob("objects/pack/*.pack")
    other = Model(pid=7)
    other.write(BASE, b"y")
    commit = other.capture(repo, branch="other")
    old.with_suffix(".idx").unlink()
    old.unlink()
    fresh = Repository.open(repo.path)
    assert own_pages(fresh.load(commit), 7) == other.content()
    with pytest.raises(StoreError):
        fresh.load(first)
    for look in (lambda: fresh.branches(), lambda: list(fresh.log(all=True))):
        with pytest.raises(StoreError, match=first):
            look()


def test_a_truncated_pack(repo: Repository) -> None:
    model = Model()
    model.write(BASE, random.Random(1).randbytes(50_000))
    commit = model.capture(repo)
    pack = _pack_of(repo)
    pack.write_bytes(pack.read_bytes()[:-2000])
    with pytest.raises((ImageError, StoreError)):
        own_pages(Repository.open(repo.path).load(commit))


def test_a_writer_notices_damage_before_it_builds_on_it(repo: Repository) -> None:
    """A new writer that must read the chain of a damaged piece says so instead of storing a delta to nowhere."""
    model = Model()
    model.write(BASE, b"x")
    commit = model.capture(repo)
    blob = bytearray(repo.show(commit, "proc/4242/memory/7f1234800000/00000000.key0"))
    blob[34] ^= 1  # the page's hash
    forged = _forged(repo, commit, bytes(blob))
    model.tip = forged
    model.write(BASE, b"y")
    with pytest.raises(DamagedImage):
        model.capture(repo, branch="forged")
    assert repo.tip("forged") is None


def test_read_only_error_is_the_one_for_the_user(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call fails with EROFS, the error names the repository and says that it cannot be written."""
    import errno

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("vcsimg.store.leftovers.Owner.unfinished", refuse)
    with pytest.raises(RepositoryReadOnly, match=str(repo.path)):
        Model().capture(repo)
    assert repo.branches() == []


@pytest.mark.parametrize("name", ["two..dots", "ends.lock", "a b", ""])
def test_a_name_that_no_branch_can_have(repo: Repository, name: str) -> None:
    model = Model()
    with pytest.raises(StoreError, match="cannot be the name of a branch"):
        repo.commit(model.snapshot(), branch=name, parents=[])
    with pytest.raises(StoreError, match="cannot be the name of a branch"):
        repo.draft(name)
    assert repo.branches() == []
