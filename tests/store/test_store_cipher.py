"""Encryption at rest: nothing readable on the disk, sharing kept, forgery refused, and no key needed to carry it about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import DamagedImage, HostileImage, KeyMissing, StoreError
from vcsimg.store import Repository
from vcsimg.store.cipher import Cipher

pytest.importorskip("cryptography")
SECRET = b"correct horse battery staple"


@pytest.fixture
def sealed(tmp_path: Path) -> Repository:
    return Repository.init(tmp_path / "sealed", sync="none", key_file=tmp_path / "key")


def blobs(repo: Repository) -> list[bytes]:
    """Every blob, as git has it."""
    listed = subprocess.run(
        ["git", "-C", repo.path, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split()[1] for line in listed.splitlines() if line.startswith("blob")]
    return [
        subprocess.run(["git", "-C", repo.path, "cat-file", "blob", name], capture_output=True, check=True).stdout for name in names
    ]


def test_nothing_is_readable_without_the_key_and_all_with_it(
    sealed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    captures = []
    for step in range(30):
        model.write(BASE + 4096 * (step % 3), SECRET + bytes([step]))
        captures.append((model.capture(sealed), model.content()))
    for commit, pages in captures:
        assert own_pages(sealed.load(commit)) == pages
    sealed.close()
    for blob in blobs(sealed):
        assert blob.startswith(b"VXE\x01")
        assert SECRET not in blob
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    assert sealed.fsck().clean
    (tmp_path / "key").rename(tmp_path / "elsewhere")
    without = Repository.open(sealed.path)
    with pytest.raises(KeyMissing):
        without.load("HEAD")
    with pytest.raises(KeyMissing):
        model.capture(without)
    report = without.fsck()
    assert report.clean
    assert report.sealed == 30
    copy = Repository.clone(str(sealed.path), tmp_path / "copy")
    assert len(list(copy.log())) == 30
    monkeypatch.setenv("VCSIMG_KEY_FILE", str(tmp_path / "elsewhere"))
    copy = Repository.open(tmp_path / "copy")
    assert own_pages(copy.load(captures[-1][0])) == captures[-1][1]


def test_equal_contents_are_one_blob(sealed: Repository) -> None:
    one, two = Model(), Model()
    one.write(BASE, SECRET)
    two.write(BASE, SECRET)
    one.capture(sealed, branch="a")
    before = len(blobs(sealed))
    two.capture(sealed, branch="b")
    assert len(blobs(sealed)) == before


def test_the_key_may_come_from_a_command(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("ab" * 64)
    repo = Repository.init(tmp_path / "repo", key_command=f"cat {tmp_path / 'key'}")
    model = Model()
    model.write(BASE, SECRET)
    assert own_pages(repo.load(model.capture(repo))) == model.content()
    with pytest.raises(StoreError, match="no key from 'exit 3'"):
        Repository.init(tmp_path / "other", key_command="exit 3")
    assert not (tmp_path / "other").exists()


def test_a_command_for_the_key_that_fails_is_like_a_file_that_is_gone(tmp_path: Path) -> None:
    """What needs no key goes on."""
    (tmp_path / "key").write_text("ab" * 64)
    repo = Repository.init(tmp_path / "repo", key_command=f"cat {tmp_path / 'key'}")
    model = Model()
    model.write(BASE, SECRET)
    capture = model.capture(repo)
    (tmp_path / "key").unlink()
    again = Repository.open(tmp_path / "repo")
    assert not again.fsck().damaged
    assert again.gc().packs_after == 1
    with pytest.raises(KeyMissing):
        again.load(capture)


def test_a_blob_that_was_changed_is_refused() -> None:
    cipher = Cipher(bytes(range(64)))
    blob = bytearray(cipher.seal(SECRET))
    assert cipher.unseal(bytes(blob), "test") == SECRET
    blob[-1] ^= 1
    with pytest.raises(DamagedImage):
        cipher.unseal(bytes(blob), "test")
    with pytest.raises(KeyMissing):
        Cipher(bytes(64)).unseal(bytes(blob), "test")


def test_a_plain_capture_put_into_a_sealed_repository_is_refused(sealed: Repository, tmp_path: Path) -> None:
    """A host that has no key cannot slip in an image of its own."""
    plain = Repository.init(tmp_path / "plain")
    forged = Model().capture(plain)
    subprocess.run(["git", "-C", plain.path, "push", "-q", sealed.path, "model.4242"], check=True)
    with pytest.raises(HostileImage, match="not encrypted"):
        Repository.open(sealed.path).load(forged)


def test_a_repository_with_plain_captures_cannot_be_sealed_later(tmp_path: Path) -> None:
    repo = Repository.init(tmp_path / "repo")
    Model().capture(repo)
    with pytest.raises(StoreError, match="not encrypted"):
        Repository.init(tmp_path / "repo", key_file=tmp_path / "key")
