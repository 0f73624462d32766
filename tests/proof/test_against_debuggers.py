"""What is rebuilt from git, held against /proc/PID/mem and against tools that no one here wrote."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drgn
import pytest

from tests.capture.comparison import assert_same, read_everything
from tests.conftest import Target, on_one_processor
from tests.proof.conftest import Run
from vcsimg.export import save_core
from vcsimg.image.snapshot import Process
from vcsimg.store import Repository

Start = Callable[..., Target]
Record = Callable[..., list[str]]


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.fail(f"{program} is not installed: see tools/debian-packages")


def core_of(store: Repository, commit: str, path: Path) -> Path:
    snapshot = store.load(commit)
    save_core(snapshot, snapshot.processes[0], path)
    return path


def loads(core: Path, readelf: str) -> dict[int, tuple[int, int]]:
    """PT_LOAD segments by address: (offset, bytes in the file)."""
    found = {}
    for line in readelf.splitlines():
        words = line.split()
        if words and words[0] == "LOAD":
            offset, address, _, size = (int(word, 16) for word in words[1:5])
            found[address] = (offset, size)
    return found


def test_every_byte_equals_the_stopped_process(start: Start, store: Repository, record: Record) -> None:
    target = start("proof_threads", preexec_fn=on_one_processor)
    target.line()
    commits = record(target.pid, 3, lambda: (target.send("x\n"), target.line()))
    target.stop()
    commits += record(target.pid)
    with Path(f"/proc/{target.pid}/mem").open("rb", buffering=0) as memory:
        assert_same(store.load(commits[-1]).processes[0], read_everything(target.pid, memory.fileno()))


def test_core_equals_what_gcore_writes(start: Start, store: Repository, record: Record, command: Run, tmp_path: Path) -> None:
    needs("gcore")
    target = start("proof_threads", preexec_fn=on_one_processor)
    target.line()
    target.stop()
    ours = core_of(store, record(target.pid)[0], tmp_path / "ours")
    command("gcore", "-o", tmp_path / "theirs", target.pid)
    theirs = tmp_path / f"theirs.{target.pid}"
    segments = loads(ours, command("eu-readelf", "-l", ours))
    compared = 0
    with ours.open("rb") as mine, theirs.open("rb") as other:
        for address, (offset, size) in loads(theirs, command("eu-readelf", "-l", theirs)).items():
            if size == 0 or address >= 1 << 63:
                continue
            own_offset, own_size = segments[address]
            mine.seek(own_offset)
            other.seek(offset)
            assert mine.read(min(size, own_size)) == other.read(min(size, own_size)), f"segment at {address:#x}"
            compared += min(size, own_size)
    assert compared > 3 << 20


def test_gdb_sees_threads_and_values(start: Start, store: Repository, record: Record, command: Run, tmp_path: Path) -> None:
    needs("gdb")
    target = start("proof_threads")
    target.line()
    commits = record(target.pid, 2, lambda: (target.send("x\n"), target.line()))
    program = Path(f"/proc/{target.pid}/exe").resolve()
    for commit, counter in zip(commits, (7, 8), strict=True):
        core = core_of(store, commit, tmp_path / f"core{counter}")
        options = ["-batch", "-nx", "-ex", "print counter", "-ex", "print first.next->owner", "-ex", "thread apply all backtrace"]
        said = command("gdb", *options, "-ex", "info registers rip", "-ex", "info sharedlibrary", program, core)
        assert f"$1 = {counter}" in said
        assert '"grace' in said
        assert said.count("in worker (") == 3
        assert "in main ()" in said
        assert "libc.so.6" in said


def test_drgn_reads_typed_globals(start: Start, store: Repository, record: Record, tmp_path: Path) -> None:
    target = start("proof_threads")
    target.line()
    program = drgn.Program()
    program.set_core_dump(core_of(store, record(target.pid)[0], tmp_path / "core"))
    program.load_debug_info([str(Path(f"/proc/{target.pid}/exe").resolve())])
    assert program["counter"].value_() == 7
    assert program["first"].balance.value_() == 99.25
    assert program["first"].next.owner.string_() == b"grace"


def test_elfutils_reads_notes_and_stacks(start: Start, store: Repository, record: Record, command: Run, tmp_path: Path) -> None:
    needs("eu-readelf")
    target = start("proof_threads")
    target.line()
    core = core_of(store, record(target.pid)[0], tmp_path / "core")
    notes = command("eu-readelf", "-n", core)
    assert notes.count("PRSTATUS") == 4
    assert notes.count("X86_XSTATE") == 4
    assert "AUXV" in notes
    program = Path(f"/proc/{target.pid}/exe").resolve()
    assert command("eu-stack", f"--core={core}", f"--executable={program}").count("wait_here") >= 3


def test_pystack_sees_the_python_stack(start: Start, store: Repository, record: Record, command: Run, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, time\n"
        "def deepest(secret):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        "def middle():\n"
        "    deepest('found me')\n"
        "middle()\n"
    )
    target = start(sys.executable, script)
    assert target.line() == "ready"
    core = core_of(store, record(target.pid)[0], tmp_path / "core")
    executable = Path(f"/proc/{target.pid}/exe").resolve()
    said = command(sys.executable, "-m", "pystack", "core", "--locals", core, executable)
    assert "deepest" in said
    assert "middle" in said
    assert "found me" in said


def regions_named(process: Process, name: str) -> list[Any]:
    return [region for region in process.regions if region.name.endswith(name)]


def test_an_image_still_opens_after_the_program_was_rebuilt(
    start: Start, store: Repository, record: Record, tmp_path: Path
) -> None:
    built = tmp_path / "program"
    source = start("proof_threads")
    source.line()
    shutil.copy(Path(f"/proc/{source.pid}/exe").resolve(), built)
    target = start(built)
    target.line()
    text = [
        region for region in Path(f"/proc/{target.pid}/maps").read_text().splitlines() if str(built) in region and "r-xp" in region
    ]
    begin, end = (int(part, 16) for part in text[0].split()[0].split("-"))
    with Path(f"/proc/{target.pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(begin)
        code = memory.read(end - begin)
    commit = record(target.pid)[0]
    built.unlink()
    built.write_bytes(b"something else")
    memory_of = store.load(commit).processes[0].memory
    assert memory_of is not None
    assert memory_of.read(begin, end - begin) == code
