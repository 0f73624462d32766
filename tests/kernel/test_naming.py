"""Names of files that lead nowhere else, and file systems that are known without asking them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcsimg.kernel import naming, procfs, statx
from vcsimg.kernel.filesystems import Kind, kinds


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["link", "link/file", "real/link"])
def test_no_link_is_followed(path: str, folder: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "link").symlink_to("file")
    os.close(naming.open_directly("real/file", os.O_RDONLY, folder))
    with pytest.raises(OSError) as caught:  # noqa: PT011
        naming.open_directly(path, os.O_RDONLY, folder)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["..", "/etc", "real/../.."])
def test_no_path_leads_out(path: str, folder: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        naming.open_directly(path, os.O_RDONLY, folder)
    assert caught.value.errno == errno.EXDEV


def test_names_are_exchanged_and_never_taken_away(folder: int, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    with pytest.raises(FileExistsError):
        naming.rename_to_new("one", "two", folder)
    naming.exchange("one", "two", folder)
    naming.rename_to_new("one", "three", folder)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"two": "1", "three": "2"}


def test_kinds_of_mounts() -> None:
    table = b"""22 27 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 27 0:40 / /mnt/with\\040space rw - fuse.sshfs me@host: rw
32 27 0:41 / /home rw master:2 propagate_from:1 - nfs4 server:/home rw
33 27 0:42 / /new rw - somethingfs none rw
"""
    assert kinds(table) == {22: Kind.OTHER, 27: Kind.LOCAL, 31: Kind.SERVED, 32: Kind.SERVED, 33: Kind.OTHER}


def test_kinds_of_our_own_mounts() -> None:
    found = kinds(procfs.read(os.getpid(), "mountinfo"))
    assert found[statx.statx("/proc/self/status").mount] is Kind.OTHER
