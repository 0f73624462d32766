"""Contents of files that change from capture to capture: stored by parts, shared, carried along, checked."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from store_model import Model

from vcsimg.capture.file_copies import FileCopy, Scratch
from vcsimg.errors import DamagedImage, HostileImage, ProcessChanged
from vcsimg.image.pages import ImageMemory
from vcsimg.image.sections.contents import Content
from vcsimg.image.snapshot import FILE_PART, FileContent
from vcsimg.store import Repository

CHUNK = 2 << 20
SIZES = (0, 1, FILE_PART - 1, FILE_PART, FILE_PART + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3 * FILE_PART + 5)


class Files(Model):
    """A process with one open file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.scratch = Scratch(folder)
        self.copy = FileCopy(self.scratch)
        self.data = b""
        self.asked: list[int] = []

    def set(self, data: bytes) -> None:
        self.data = data
        view = memoryview(data)
        self.copy.replace(0, (view[offset : offset + FILE_PART] for offset in range(0, len(data), FILE_PART)))

    def keep(self, repo: Repository, again: Callable[[int, int], bytes] | None = None) -> str:
        """Capture it."""

        def read(offset: int, length: int) -> bytes:
            self.asked.append(offset)
            return self.data[offset : offset + length]

        content = self.copy.content(again or read)
        snapshot = self.snapshot()
        process = snapshot.processes[0]
        record = Content("08:01", 7, "/home/me/log", len(self.data), 0, 0o100644, 0, 0, 1, True, False, content.sha256, None)
        state = {**process.state, "contents": (record.record(),)}
        snapshot = replace(snapshot, processes=(replace(process, state=state),), files={content.sha256: content})
        self.tip = repo.commit(snapshot, branch="model.4242", parents=[self.tip] if self.tip else [])
        self.copy.stored()
        self.scratch.clear()
        return self.tip


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def content(repo: Repository, commit: str) -> bytes:
    """What the capture has of the file."""
    process = repo.load(commit).processes[0]
    memory = process.memory
    assert isinstance(memory, ImageMemory)
    (record,) = process.section("contents")
    size = memory.files.size(record["sha256"])
    assert size is not None
    return memory.files.read(record["sha256"], 0, size)


def test_every_size_comes_back(repo: Repository, files: Files) -> None:
    captures = []
    for size in (*SIZES, *reversed(SIZES)):
        files.set(os.urandom(size))
        captures.append((files.keep(repo), files.data))
    for commit, data in captures:
        assert files.copy.sha256 == hashlib.sha256(files.data).hexdigest()
        assert content(repo, commit) == data
    repo.close()
    assert repo.fsck().clean


def test_random_changes_cost_the_parts_that_they_touch(repo: Repository, files: Files) -> None:
    data = bytearray(os.urandom(4 * CHUNK))
    files.set(bytes(data))
    captures = [(files.keep(repo), files.data)]
    for place in (0, FILE_PART - 1, CHUNK, 3 * CHUNK + 17, 4 * CHUNK - 1):
        before = repo.bytes_written
        data[place] ^= 1
        files.set(bytes(data))
        captures.append((files.keep(repo), files.data))
        assert repo.bytes_written - before < 2 * FILE_PART
    for commit, expected in captures:
        assert content(repo, commit) == expected
    assert files.asked == []


def test_a_line_more_costs_as_little_in_a_large_file(repo: Repository, files: Files) -> None:
    data = b"the same line again and again\n" * (8 * CHUNK // 30)
    files.set(data)
    files.keep(repo)
    sizes = []
    for size in (100, 100_000):
        files.set(data[: size * 30])
        files.keep(repo)
        before = repo.bytes_written
        files.set(files.data + b"one line more\n")
        files.keep(repo)
        sizes.append(repo.bytes_written - before)
    assert sizes[1] < sizes[0] + 4096


def test_what_came_back_to_an_earlier_state_is_that_state(repo: Repository, files: Files) -> None:
    states = [os.urandom(3 * FILE_PART), os.urandom(2 * FILE_PART)]
    trees = []
    for step in range(4):
        files.set(states[step % 2])
        files.keep(repo)
        trees.append(repo.show("HEAD", f"files/{files.copy.sha256[:2]}/{files.copy.sha256}"))
    assert trees[:2] == trees[2:]
    assert content(repo, "HEAD") == states[1]


def test_a_new_writer_asks_for_what_it_does_not_know_and_stores_nothing_twice(
    repo: Repository, files: Files, tmp_path: Path
) -> None:
    data = os.urandom(CHUNK)
    files.set(data)
    files.keep(repo)
    files.set(data + b"more")
    with Repository.open(repo.path, sync="none") as other:
        files.keep(other)
        assert other.bytes_written < CHUNK // 2
        assert content(other, "HEAD") == data + b"more"
    assert len(files.asked) == CHUNK // FILE_PART


def test_a_capture_whose_parts_cannot_be_read_again_is_not_committed(repo: Repository, files: Files) -> None:
    files.set(os.urandom(2 * FILE_PART))
    tip = files.keep(repo)
    files.set(files.data + b"more")

    def gone(offset: int, length: int) -> bytes:
        raise ProcessChanged(files.pid, "its file changed")

    with Repository.open(repo.path, sync="none") as other, pytest.raises(ProcessChanged):
        files.keep(other, gone)
    assert repo.resolve("HEAD") == tip


def test_encrypted(tmp_path: Path, files: Files) -> None:
    pytest.importorskip("cryptography")
    repo = Repository.init(tmp_path / "sealed", sync="none", key_file=tmp_path / "key")
    secret = b"correct horse battery staple " * 9000
    files.set(secret)
    files.keep(repo)
    before = repo.bytes_written
    files.set(secret + b"more")
    files.keep(repo)
    assert repo.bytes_written - before < FILE_PART
    assert content(repo, "HEAD~1") == secret
    assert content(repo, "HEAD") == secret + b"more"
    assert repo.fsck().clean
    repo.close()
    for pack in (repo.path / "objects" / "pack").glob("*.pack"):
        assert b"battery" not in pack.read_bytes()


def test_clones_bundles_and_thinned_histories_have_them(repo: Repository, files: Files, tmp_path: Path) -> None:
    captures = []
    data = os.urandom(CHUNK)
    for _ in range(6):
        data += os.urandom(10_000)
        files.set(data)
        captures.append((files.keep(repo), data))
    repo.close()
    copies = [
        Repository.clone(str(repo.path), tmp_path / "copy"),
        Repository.clone(str(repo.path), tmp_path / "shallow", depth=1),
        Repository.clone(f"file://{repo.path}", tmp_path / "light", light=True),
    ]
    repo.bundle(tmp_path / "bundle")
    copies.append(Repository.clone(str(tmp_path / "bundle"), tmp_path / "unbundled"))
    other = Repository.init(tmp_path / "pushed")
    repo.push(str(other.path), confirmed=True)
    copies.append(Repository.open(other.path))
    for copy in copies:
        assert content(copy, captures[-1][0]) == captures[-1][1]
        assert copy.fsck().clean
    repo.prune(keep_last=1)
    repo.gc()
    assert len(list(repo.log())) == 1
    assert content(repo, "HEAD") == captures[-1][1]
    assert repo.fsck().clean


def part_of(repo: Repository, files: Files) -> str:
    """The object of a part in the middle of the file's second chunk."""
    sha256 = files.copy.sha256
    path = f"HEAD:files/{sha256[:2]}/{sha256}/00000001/07.zst"
    return subprocess.run(["git", "-C", repo.path, "rev-parse", path], capture_output=True, text=True, check=True).stdout.strip()


def test_fsck_names_a_part_that_is_missing_or_damaged(repo: Repository, files: Files, tmp_path: Path) -> None:
    files.set(os.urandom(2 * CHUNK))
    commit = files.keep(repo)
    repo.close()
    part = part_of(repo, files)
    # Out of the pack, so that one object can be taken away.
    packs = list((repo.path / "objects" / "pack").glob("*.pack"))
    for pack in packs:
        pack.rename(tmp_path / pack.name)
        pack.with_suffix(".idx").unlink()
        with (tmp_path / pack.name).open("rb") as moved:
            subprocess.run(["git", "-C", repo.path, "unpack-objects", "-q"], stdin=moved, check=True)
    loose = repo.path / "objects" / part[:2] / part[2:]
    assert Repository.open(repo.path).fsck().clean
    loose.unlink()
    damaged = Repository.open(repo.path)
    report = damaged.fsck()
    assert report.damaged == {commit}
    assert any(f"files/{files.copy.sha256}/00000001/07.zst" in finding.message for finding in report.findings), report.findings
    with pytest.raises(DamagedImage, match=r"00000001/07\.zst"):
        content(damaged, commit)


def test_a_frame_of_another_size_is_refused(repo: Repository, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from vcsimg.store import files as store_files

    pack: Callable[[bytes], bytes] = store_files.pack_frame
    monkeypatch.setattr(store_files, "pack_frame", lambda data: pack(data + b"!"))
    files.set(os.urandom(3 * FILE_PART))
    commit = files.keep(repo)
    with pytest.raises(HostileImage, match="bytes"):
        content(repo, commit)
    assert repo.fsck().damaged == {commit}


def test_a_content_with_another_hash_is_found(repo: Repository, files: Files) -> None:
    files.set(b"true" * 100)
    lie = FileContent(hashlib.sha256(b"other").hexdigest(), 400, None, lambda offset, length: files.data, (b"key",))
    snapshot = replace(files.snapshot(), files={lie.sha256: lie})
    process = snapshot.processes[0]
    record = Content("08:01", 7, "/log", 400, 0, 0o100644, 0, 0, 1, True, False, lie.sha256, None)
    snapshot = replace(snapshot, processes=(replace(process, state={**process.state, "contents": (record.record(),)}),))
    commit = repo.commit(snapshot, branch="model.4242", parents=[])
    report = repo.fsck()
    assert report.damaged == {commit}
    assert "another hash" in report.findings[0].message


def test_a_content_that_is_not_there_is_found(repo: Repository, files: Files) -> None:
    record = Content("08:01", 7, "/home/me/log", 400, 0, 0o100644, 0, 0, 1, True, False, "ab" * 32, None)
    snapshot = files.snapshot()
    process = replace(snapshot.processes[0], state={"contents": (record.record(),)})
    commit = repo.commit(replace(snapshot, processes=(process,)), branch="model.4242", parents=[])
    report = repo.fsck()
    assert report.damaged == {commit}
    assert "process 4242 content of /home/me/log: it is missing" in report.findings[0].message
