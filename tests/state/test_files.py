"""Descriptors of files, and locks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target
from tests.state.reading import every, numbers, one, read_state, still_well, unsaved
from vcsimg.image.sections.files import Duplicate, File, Lock, Sealed

O_RDWR, O_APPEND = os.O_RDWR, os.O_APPEND


def test_files_of_every_kind(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_files", tmp_path)
    plain, copy, other, apart, _gone, odd, _memory, directory, path, null = numbers(target)
    state = read_state(target.pid)

    file = one(state, File, fd=plain)
    status = (tmp_path / "plain file").stat()
    assert (file.type, file.path, file.position, file.size, file.links) == ("regular", f"{tmp_path}/plain file", 4, 10, 1)
    assert file.flags & (os.O_ACCMODE | os.O_APPEND) == os.O_RDWR | os.O_APPEND
    assert (file.inode, file.mtime, file.mode, file.deleted) == (status.st_ino, status.st_mtime_ns, status.st_mode, False)
    assert file.device == f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    assert one(state, Duplicate, fd=copy) == Duplicate(copy, plain, False)
    assert one(state, Duplicate, fd=other) == Duplicate(other, plain, True)
    assert one(state, File, fd=apart).position == 4, "opened a second time: no duplicate, though it looks the same"
    assert one(state, File, fd=directory).type == "directory"
    assert one(state, File, fd=path).flags & os.O_PATH
    assert one(state, File, fd=null).special == "01:03"
    assert one(state, File, fd=odd).path.endswith("/odd (deleted)")
    assert not one(state, File, fd=odd).deleted
    assert unsaved(state) == {}
    still_well(target)


def test_content_of_deleted_and_memory_files_is_kept(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_files", tmp_path)
    _, _, _, _, gone, _, memory, *_ = numbers(target)
    state = read_state(target.pid)

    for fd, kind, path, text in (
        (gone, "regular", f"{tmp_path}/gone", b"content of the deleted file"),
        (memory, "memfd", "/memfd:a memory file", b"in memory"),
    ):
        file = one(state, File, fd=fd)
        assert (file.type, file.path, file.deleted, file.content) == (kind, path, True, hashlib.sha256(text).hexdigest())
        content = state.contents[file.content]
        assert content.read(0, content.size) == text
    assert one(state, Sealed, fd=memory).seals == 0x2 | 0x4
    still_well(target)


def test_locks(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_files", tmp_path)
    plain, _, _, apart, gone, *_ = numbers(target)
    state = read_state(target.pid)

    assert every(state, Lock) == [
        Lock(plain, "flock", "read", 0, None),
        Lock(apart, "ofd", "write", 2, None),
        Lock(gone, "posix", "write", 2, 5),
    ]
    still_well(target)
