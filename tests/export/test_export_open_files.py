"""Contents of open files, written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.export.images import anonymous, image
from vcsimg.errors import DamagedImage, ExportError, HostileImage
from vcsimg.export import write_open_files
from vcsimg.image.pages import ImageMemory
from vcsimg.image.region import Region
from vcsimg.image.sections.contents import Content
from vcsimg.image.sections.files import File
from vcsimg.image.snapshot import Snapshot

SHA = "ab" * 32
MTIME = 1_700_000_000_123_456_789


class Stored:
    """Contents by their hash."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents

    def size(self, sha256: str) -> int | None:
        return len(self.contents[sha256]) if sha256 in self.contents else None

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        return self.contents[sha256][offset : offset + length]


def content(path: str, size: int, sha256: str | None = SHA, *, inode: int = 7, in_memory: bool = False) -> Content:
    return Content("08:01", inode, path, size, MTIME, 0o100644, 0, 0, 1, True, in_memory, sha256, None)


def snapshot(*items: Content | File, contents: Mapping[str, bytes] = {}, regions: tuple[Region, ...] = ()) -> Snapshot:
    pages = {region.start: b"in memory" for region in regions}
    made = image([anonymous(0x1000000, 4096), *regions], pages)
    process = made.processes[0]
    memory = process.memory
    assert isinstance(memory, ImageMemory)
    state = {
        "contents": tuple(item.record() for item in items if isinstance(item, Content)),
        "files": tuple(item.record() for item in items if isinstance(item, File)),
    }
    memory = ImageMemory(memory.regions, memory.pieces, {}, Stored(contents))
    return replace(made, processes=(replace(process, state=state, memory=memory),))


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def test_files_by_their_paths(tmp_path: Path) -> None:
    region = Region(0x2000000, 0x2001000, "rw-s", 0, "08:01", 8, "/home/me/map", ("sh", "mw"))
    deleted = File(5, False, "regular", "/tmp/gone", 2, 0, 0o100600, "08:01", 9, None, None, 3, MTIME, 0, True, "cd" * 32)
    found = snapshot(
        content("/home/me/log", 3),
        content("/home/me/map", 9, None, inode=8, in_memory=True),
        content("/home/me/large", 10, None, inode=10),
        deleted,
        contents={SHA: b"log", "cd" * 32: b"old"},
        regions=(region,),
    )
    assert write_open_files(found, tmp_path / "out") == 3
    assert dict(written(tmp_path / "out")) == {"home/me/log": b"log", "home/me/map": b"in memory", ".nameless/100-5": b"old"}
    assert abs((tmp_path / "out" / "home" / "me" / "log").stat().st_mtime_ns - MTIME) < 1000


@pytest.mark.parametrize("path", ["/../../outside", "/a/../../../outside", "../outside", "/./outside", "//outside"])
def test_no_path_leads_out_of_the_folder(path: str, tmp_path: Path) -> None:
    write_open_files(snapshot(content(path, 3), contents={SHA: b"log"}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert {content for _, content in written(tmp_path / "out")} == {b"log"}


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no contents of open files"):
        write_open_files(snapshot(content("/log", 3)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("items", [(content("/log", 4),), (content("/log", 3), content("/other", 3)), (content("/log", -1),)])
def test_records_that_lie(items: tuple[Content, ...], tmp_path: Path) -> None:
    with pytest.raises(HostileImage):
        write_open_files(snapshot(*items, contents={SHA: b"log"}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_two_that_cannot_both_be_there(tmp_path: Path) -> None:
    both = snapshot(content("/log", 3), content("/log/below", 3, inode=8), contents={SHA: b"log"})
    with pytest.raises(ExportError):
        write_open_files(both, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_damage_is_not_written(tmp_path: Path) -> None:
    class Damaged(Stored):
        def read(self, sha256: str, offset: int, length: int) -> bytes:
            raise DamagedImage("files", "it is missing")

    made = snapshot(content("/log", 3), contents={SHA: b"log"})
    memory = made.processes[0].memory
    assert isinstance(memory, ImageMemory)
    damaged = ImageMemory(memory.regions, memory.pieces, {}, Damaged({SHA: b"log"}))
    with pytest.raises(DamagedImage):
        write_open_files(replace(made, processes=(replace(made.processes[0], memory=damaged),)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
