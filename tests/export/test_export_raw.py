"""Images as plain files, and gdb with programs that are gone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TARGETS, Target
from tests.export.images import anonymous, image
from tests.live_snapshot import LiveMemory, snapshot_of, stop_in_read
from vcsimg.errors import ExportError
from vcsimg.export import save_core, write_raw
from vcsimg.image.records import parse_records
from vcsimg.image.region import parse_map
from vcsimg.image.snapshot import FileContent, MappedFile, Snapshot

Start = Callable[..., Target]
BASE = 0x10000000


def test_a_live_process_as_files(start: Start, tmp_path: Path) -> None:
    program, library = build(tmp_path)
    target = start(program, 2, 16)
    target.line()
    stop_in_read(target)
    snapshot = snapshot_of(target.pid)
    raw = tmp_path / "raw"
    write_raw(snapshot, raw)
    folder = raw / str(target.pid)
    process = snapshot.processes[0]
    assert parse_map({"000000000000": (folder / "map").read_bytes()}, "map") == process.regions
    tids = [record["tid"] for record in parse_records((folder / "threads").read_bytes(), "threads") if record.kind == "thread"]
    assert tids == [str(thread.tid) for thread in process.threads]
    assert parse_records((folder / "state" / "auxv").read_bytes(), "auxv") == process.section("auxv")
    live = LiveMemory(target.pid)
    extents = [line.split() for line in (folder / "extents").read_text().splitlines()]
    covered = 0
    for place, kind in extents:
        begin, end = (int(word, 16) for word in place.split("-"))
        covered += end - begin
        file = folder / "memory" / f"{place}.bin"
        assert file.exists() == (kind == "data")
        if kind == "data":
            assert file.read_bytes() == live.read(begin, end - begin), place
    assert covered == sum(region.end - region.start for region in process.regions)
    assert (raw / "files" / str(program)[1:]).read_bytes() == program.read_bytes()
    assert (raw / "files" / str(library)[1:]).read_bytes() == library.read_bytes()
    for path in raw.rglob("*"):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.parametrize("named", [True, False])
def test_gdb_opens_a_core_whose_program_and_library_are_gone(start: Start, tmp_path: Path, named: bool) -> None:
    """The program's file may be named or found by its build id."""
    program, library = build(tmp_path)
    target = start(program, 1, 16)
    target.line()
    stop_in_read(target)
    snapshot = snapshot_of(target.pid)
    raw, core = tmp_path / "raw", tmp_path / "core"
    write_raw(snapshot, raw)
    save_core(snapshot, snapshot.processes[0], core)
    target.end()
    program.write_bytes(b"built anew")
    library.unlink()
    files = raw / "files"
    options = [f"set sysroot {files}", f"set debug-file-directory {files}"]
    options += [f"file {files}{program}"] if named else []
    commands = [*options, f"core-file {core}", "thread apply all bt", "p account.balance", "p library_point", "info sharedlibrary"]
    words = [word for command in commands for word in ("-ex", command)]
    text = subprocess.run(["gdb", "-nx", "-batch", *words], capture_output=True, text=True, check=False).stdout
    assert text.count("library_wait (fd=") == 2
    assert "= 12.5" in text
    assert "y = -9" in text
    libraries = text[text.index("Shared Object Library") :]
    assert f"{files}{library}" in libraries
    assert f"{files}/lib64/ld-linux-x86-64.so.2" in libraries


def test_files_of_one_path_are_both_kept(tmp_path: Path) -> None:
    snapshot = with_files(("/opt/tool", b"old" * 1000), ("/opt/tool", b"new"), ("/opt/tool/below", b"x"))
    write_raw(snapshot, tmp_path / "raw")
    files = tmp_path / "raw" / "files"
    assert (files / "opt" / "tool").read_bytes() == b"old" * 1000
    assert sorted(path.read_bytes() for path in (files / ".sha256").iterdir()) == [b"new", b"x"]


@pytest.mark.parametrize(
    "path", ["/../../../../escaped", "../escaped", "/a/../../escaped", "/", "", "/a\0b", "/" + "n" * 300, "/memfd:x (deleted)"]
)
def test_no_path_of_an_image_leads_out_of_the_directory(tmp_path: Path, path: str) -> None:
    raw = tmp_path / "a" / "b" / "raw"
    raw.parent.mkdir(parents=True)
    write_raw(with_files((path, b"content")), raw)
    assert [found.read_bytes() for found in (raw / "files").rglob("*") if found.is_file()] == [b"content"]
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert os.listdir(tmp_path / "a" / "b") == ["raw"]


def test_a_file_whose_content_the_image_lacks_is_left_out(tmp_path: Path) -> None:
    snapshot = with_files(("/opt/tool", b"x"))
    write_raw(replace(snapshot, files={}), tmp_path / "raw")
    assert list((tmp_path / "raw" / "files").iterdir()) == []


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "precious").write_text("keep")
    with pytest.raises(ExportError, match="raw"):
        write_raw(with_files(("/opt/tool", b"x")), raw)
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "precious"]


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    write_raw(with_files(("/opt/tool", b"x")), tmp_path)
    assert (tmp_path / "files" / "opt" / "tool").read_bytes() == b"x"


def build(folder: Path) -> tuple[Path, Path]:
    """A program and its library, which may be removed again."""
    library, program = folder / "gone-library.so", folder / "gone-program"
    compiler = ["cc", "-g", "-O1", "-pthread"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, TARGETS / "export_library.c"], check=True)
    subprocess.run([*compiler, "-o", program, TARGETS / "export_threads.c", library], check=True)
    return program, library


def with_files(*files: tuple[str, bytes]) -> Snapshot:
    """An image with mapped files of given paths and contents."""
    snapshot = image([anonymous(BASE, 4096)], {BASE: b"x"})
    mapped, contents = [], {}
    for number, (path, data) in enumerate(files):
        sha256 = f"{number:064x}"
        mapped.append(MappedFile("08:01", number + 1, path, len(data), sha256))
        contents[sha256] = FileContent(sha256, len(data), None, lambda offset, length, data=data: data[offset : offset + length])
    return replace(snapshot, processes=(replace(snapshot.processes[0], mapped=tuple(mapped)),), files=contents)
