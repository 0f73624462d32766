"""Cores of stopped processes, against /proc/PID/mem, gdb's gcore, and the debuggers that open them."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import Target, compile_target
from tests.export.cores import Core
from tests.live_snapshot import LiveMemory, snapshot_of, stop_in_read
from vcsimg.errors import AccessError
from vcsimg.export import core_name, save_core, write_core
from vcsimg.image.pages import ImageMemory
from vcsimg.image.snapshot import Snapshot

Start = Callable[..., Target]
needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
needs_elfutils = pytest.mark.skipif(shutil.which("eu-readelf") is None, reason="elfutils are not installed")


@dataclass
class Stopped:
    """A stopped program, its image, and the core made of it."""

    target: Target
    program: Path
    snapshot: Snapshot
    core: Path
    word: int
    closed: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    folder = tmp_path_factory.mktemp("core")
    short = folder / "short"
    short.write_bytes(b"s" * 5000)
    library = compile_target("export_library", "-shared", "-fPIC")
    program = compile_target("export_threads", str(library))
    target = Target(program, "3", "64", short)
    word, closed = (int(address, 16) for address in target.line().split())
    stop_in_read(target)
    snapshot = snapshot_of(target.pid)
    core = folder / "image.core"
    save_core(snapshot, snapshot.processes[0], core)
    yield Stopped(target, program, snapshot, core, word, closed)
    target.end()


def gdb(*commands: str, core: Path, program: Path | None = None) -> str:
    words = [word for command in commands for word in ("-ex", command)]
    first = [str(program)] if program else []
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", *words, *first, "-c", str(core)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_every_readable_byte_is_that_of_the_process(stopped: Stopped) -> None:
    core, live = Core(stopped.core), LiveMemory(stopped.target.pid)
    compared = 0
    for region in stopped.snapshot.processes[0].regions:
        for start in range(region.start, region.end, 1 << 21):
            length = min(1 << 21, region.end - start)
            try:
                expected = live.read(start, length)
            except AccessError as error:
                expected = live.read(start, error.done)
            if region.perms.startswith("---") and not any(expected):
                expected = b""
            assert core.read(start, length) == expected, f"{start:#x} {region}"
            compared += len(expected)
    assert compared > 64 << 20


def test_every_region_has_its_segments(stopped: Stopped) -> None:
    loads = Core(stopped.core).loads
    for region in stopped.snapshot.processes[0].regions:
        inside = [load for load in loads if region.start <= load[0] < region.end]
        assert inside[0][0] == region.start
        assert sum(load[1] for load in inside) == region.end - region.start
        flags = sum(bit for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if letter in region.perms)
        assert {load[4] for load in inside} == {flags}


def test_a_page_beyond_the_end_of_its_file_has_no_bytes(stopped: Stopped) -> None:
    core = Core(stopped.core)
    region = next(region for region in stopped.snapshot.processes[0].regions if region.name.endswith("/short"))
    assert core.read(region.start, 8192) == b"s" * 4096 + b"W" + b"s" * 903 + bytes(3192)
    assert core.read(region.start + 8192, 1) == b""


def test_data_behind_a_closed_page_is_there(stopped: Stopped) -> None:
    held = Core(stopped.core).read(stopped.closed, 23)
    assert held == b"hidden behind PROT_NONE"


@needs_gdb
def test_bytes_and_registers_equal_those_of_gcore(stopped: Stopped, tmp_path: Path) -> None:
    subprocess.run(["gcore", "-o", tmp_path / "theirs", str(stopped.target.pid)], check=True, capture_output=True)
    path = tmp_path / f"theirs.{stopped.target.pid}"
    ours, theirs = Core(stopped.core), Core(path)
    compared = 0
    short = next(region for region in stopped.snapshot.processes[0].regions if region.name.endswith("/short"))
    for address, _, _, filesz, _ in theirs.loads:
        if address == short.start:
            continue  # gcore gives up the whole region, because it cannot read the pages beyond the end of the file
        for start in range(address, address + filesz, 1 << 20):
            held = ours.read(start, min(1 << 20, address + filesz - start))
            # What cannot be read (vvar, guard pages) we leave out, and gcore fills with zeros.
            assert held == theirs.read(start, len(held)), f"{start:#x}"
            compared += len(held)
    assert compared > 64 << 20
    command = ("thread apply all info registers rip rsp rax rbx rbp fs_base eflags mxcsr xmm9",)
    mine = gdb(*command, core=stopped.core, program=stopped.program)
    assert mine.count("rip") == 4
    assert _registers(mine) == _registers(gdb(*command, core=path, program=stopped.program))


def _registers(text: str) -> dict[str, list[str]]:
    """Register lines by thread number."""
    out: dict[str, list[str]] = {}
    thread = ""
    for line in text.splitlines():
        if found := re.match(r"Thread .*\(LWP (\d+)\)", line):
            thread = found[1]
        elif re.match(r"[a-z0-9_]+ +(0x|\{|\[)", line):
            out.setdefault(thread, []).append(line)
    return out


@needs_gdb
def test_gdb_shows_threads_stacks_libraries_and_variables(stopped: Stopped) -> None:
    text = gdb(
        "info threads",
        "thread apply all bt",
        "info sharedlibrary",
        "p account",
        "p library_point",
        "p *account.list->next",
        core=stopped.core,
        program=stopped.program,
    )
    assert re.search(rf"\* 1 +.*LWP {stopped.target.pid}\)", text), "the main thread is not the current one"
    for thread in stopped.snapshot.processes[0].threads:
        assert f"LWP {thread.tid}" in text
    for depth in (3, 4, 5):
        assert f"wait_below (depth=depth@entry={depth})" in text
    assert text.count("library_wait (fd=") == 4
    assert re.search(r"0x[0-9a-f]+ +0x[0-9a-f]+ +Yes +\S*export_library", text)
    assert "balance = 12.5, colour = GREEN, flags = 3, mode = 17" in text
    assert "label = 0x" in text
    assert "{value = 22, next = 0x0}" in text
    assert "too small" not in text


@needs_gdb
def test_gdb_reads_wide_vector_registers(stopped: Stopped) -> None:
    """The XSAVE area of AMD's CPUs is laid out in another way than gdb assumes."""
    text = gdb("p $xmm9.v2_int64", "p $mxcsr", core=stopped.core, program=stopped.program)
    assert f"{{{0x3FF8000000000000}, {0x4004000000000000}}}" in text
    assert "too small" not in text


@needs_elfutils
def test_elfutils_unwind_every_thread_without_being_told_the_program(stopped: Stopped) -> None:
    done = subprocess.run(["eu-stack", f"--core={stopped.core}"], capture_output=True, text=True, check=False)
    assert len(re.findall(r"^TID \d+:", done.stdout, re.M)) == 4
    assert done.stdout.count(" library_wait") == 4
    assert done.stdout.count(" worker") == 3
    assert " main" in done.stdout


@needs_elfutils
def test_readelf_prints_the_notes(stopped: Stopped) -> None:
    text = subprocess.run(["eu-readelf", "-n", stopped.core], capture_output=True, text=True, check=True).stdout
    assert text.count("PRSTATUS") == text.count("X86_XSTATE") == text.count("SIGINFO") == 4
    assert f"pid: {stopped.target.pid}, ppid: " in text
    assert f"psargs: {str(stopped.program)[:79]}" in text
    libraries = {region.name for region in stopped.snapshot.processes[0].regions if region.has_file}
    assert all(re.search(rf" {re.escape(name)}$", text, re.M) for name in libraries)


def test_drgn_reads_typed_globals_and_stacks(stopped: Stopped) -> None:
    drgn = pytest.importorskip("drgn")
    program = drgn.Program()
    program.set_core_dump(stopped.core)
    with contextlib.suppress(drgn.MissingDebugInfoError):  # the C library and the vdso have none
        program.load_default_debug_info()
    account = program["account"]
    assert account.name.string_() == b"alice"
    assert account.balance.value_() == 12.5
    assert account.mode.value_() == 17
    assert account.list.next.value.value_() == 22
    assert program["library_point"].y.value_() == -9
    names = {frame.name for thread in program.threads() for frame in thread.stack_trace()}
    assert {"main", "worker", "wait_below", "library_wait"} <= names


def test_pystack_shows_python_threads(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("pystack")
    script = tmp_path / "program.py"
    script.write_text(
        "import os, threading\n"
        "def inner_wait(): os.read(fds[0], 1)\n"
        "def thread_body(): inner_wait()\n"
        "def main_body(): inner_wait()\n"
        "fds = os.pipe()\n"
        "threading.Thread(target=thread_body).start()\n"
        "print('ready', flush=True)\n"
        "main_body()\n"
    )
    interpreter = Path(sys.executable).resolve()
    target = start(interpreter, script)
    target.line()
    stop_in_read(target)
    snapshot = snapshot_of(target.pid)
    core = tmp_path / "python.core"
    save_core(snapshot, snapshot.processes[0], core)
    done = subprocess.run([sys.executable, "-m", "pystack", "core", core, interpreter], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("main_body", "thread_body", "inner_wait"):
        assert name in done.stdout
    assert done.stdout.count("inner_wait") >= 2


@needs_gdb
def test_without_the_files_gdb_reads_them_from_the_disk(stopped: Stopped, tmp_path: Path) -> None:
    """An image made with --no-files: what it does not hold is left to the debugger, and is not zeros."""
    process = stopped.snapshot.processes[0]
    memory = process.memory
    assert isinstance(memory, ImageMemory)

    class Gone:
        def size(self, sha256: str) -> int | None:
            return None

        def read(self, sha256: str, offset: int, length: int) -> bytes:
            raise AssertionError("not there")

    bare = ImageMemory(memory.regions, memory.pieces, memory.backing, Gone(), memory.unreadable)
    core = tmp_path / "bare.core"
    save_core(stopped.snapshot, replace(process, memory=bare), core)
    code = next(region for region in process.regions if "x" in region.perms and region.has_file)
    assert Core(core).read(code.start, 1) == b""
    text = gdb("thread apply all bt", "p account.balance", f"x/4xb {code.start:#x}", core=core, program=stopped.program)
    assert text.count("library_wait (fd=") == 4
    assert "= 12.5" in text
    assert "Cannot access" not in text


def test_a_pipe_gets_the_same_bytes(stopped: Stopped) -> None:
    with subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hasher:
        assert hasher.stdin is not None
        assert hasher.stdout is not None
        write_core(stopped.snapshot, stopped.snapshot.processes[0], hasher.stdin)
        hasher.stdin.close()
        piped = hasher.stdout.read().split()[0]
    assert piped == subprocess.check_output(["sha256sum", stopped.core]).split()[0]


def test_appending_writes_zeros_out(stopped: Stopped, tmp_path: Path) -> None:
    """Seeks do nothing on a descriptor with O_APPEND: `checkout --core - >> FILE`."""
    path = tmp_path / "appended"
    with path.open("ab") as stream:
        write_core(stopped.snapshot, stopped.snapshot.processes[0], stream)
    assert path.read_bytes() == stopped.core.read_bytes()


def test_zeros_become_holes(stopped: Stopped) -> None:
    """A third of 9 MiB is written, and one page of 64 MiB."""
    status = stopped.core.stat()
    assert status.st_size > 73 << 20
    assert status.st_blocks * 512 < 16 << 20


def test_long_zeros_do_not_lengthen_the_core(start: Start, tmp_path: Path) -> None:
    library = compile_target("export_library", "-shared", "-fPIC")
    target = start(compile_target("export_threads", str(library)), 0, 1 << 20)
    word, _ = (int(address, 16) for address in target.line().split())
    stop_in_read(target)
    snapshot = snapshot_of(target.pid, wide=(word,))
    core = tmp_path / "wide.core"
    save_core(snapshot, snapshot.processes[0], core)
    assert core.stat().st_size < 2 << 30
    held = Core(core)
    assert held.read(word, 20) == b"a word in the desert"
    region = snapshot.processes[0].regions.find(word)
    assert region is not None
    for address in (region.start, word - (8 << 20), word + (4 << 20), region.end - 4096):
        assert held.read(address, 4096) == bytes(4096)


def test_the_name_of_a_core_is_safe(stopped: Stopped) -> None:
    process = replace(stopped.snapshot.processes[0], name="../a b/c")
    assert core_name(process) == f"_a_b_c.{process.pid}.core"
