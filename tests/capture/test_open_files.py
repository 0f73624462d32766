"""Contents of the files that processes have open: all of them, of the instant of the capture, and no more work than there are changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.restore.reviving import heed_signals
from vcsimg.capture import Options, file_uses, open_files
from vcsimg.capture.open_files import OpenFiles
from vcsimg.image.sections.contents import Content
from vcsimg.image.snapshot import FILE_PART, Process
from vcsimg.image.versions import contents, reader
from vcsimg.kernel import procfs
from vcsimg.kernel.filesystems import Kind, kinds
from vcsimg.recording import Recorded, Recorder
from vcsimg.store import Repository

PROGRAM = """
import mmap, os, sys
os.chdir(sys.argv[1])
exec(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
"""Runs Python code: some at first, then line by line."""

LARGE = 6 << 20
"""More than is read while a process is stopped."""


class Program:
    """A program that runs code in a folder, and is captured into a repository."""

    def __init__(self, folder: Path, code: str, **options: object) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.folder, code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=heed_signals,
        )
        assert self._line() == "ready\n"
        self.repository = Repository.init(folder / "repository", sync="none")
        self.recorder = Recorder(self.repository, self.process.pid, Options(scratch=folder, **options))  # type: ignore[arg-type]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def run(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        assert self._line() == "done\n"

    def capture(self) -> Recorded:
        return self.recorder.capture()

    def image(self, revision: str = "HEAD") -> Process:
        return self.repository.load(revision).processes[0]

    def records(self, revision: str = "HEAD") -> dict[str, Content]:
        """What the image says of the files in the folder, by their names."""
        found = contents(self.image(revision))
        return {os.path.basename(content.path): content for content in found if content.path.startswith(f"{self.folder}/")}

    def content(self, name: str, revision: str = "HEAD") -> bytes | None:
        image = self.image(revision)
        record = self.records(revision)[name]
        read = reader(image, record)
        return read(0, record.size) if read is not None else None


@contextmanager
def running(folder: Path, code: str, **options: object) -> Iterator[Program]:
    program = Program(folder, code, **options)
    try:
        with program.recorder:
            yield program
    finally:
        for pid in [*procfs.descendants(program.process.pid), program.process.pid]:
            os.kill(pid, signal.SIGKILL)
        program.process.communicate()
        program.repository.close()


def settle() -> None:
    """Until no change of a file can have the time of the last one."""
    time.sleep(0.1)


OPENED = """
small = open("small", "w+b", buffering=0); small.write(b"a" * 100)
large = open("large", "w+b", buffering=0); large.write(os.urandom(3 << 20))
empty = open("empty", "w")
log = open("log", "ab", buffering=0); log.write(b"line\\n")
again = open("log", "ab", buffering=0)
os.dup(log.fileno())
open("read", "wb").write(b"to be read"); read = open("read", "rb")
open("much", "wb").write(bytes(100_000)); much = open("much", "rb")
open("path", "wb").write(b"not opened"); path = os.open("path", os.O_PATH)
mapped = open("mapped", "w+b"); mapped.truncate(70_000); memory = mmap.mmap(mapped.fileno(), 70_000); mapped.close(); memory[69_000] = 1
partly = open("partly", "w+b", buffering=0); partly.write(b"p" * 10_000); part = mmap.mmap(partly.fileno(), 4096); part[7] = 2
"""


def test_every_file_that_can_be_written_and_small_ones_that_are_read(tmp_path: Path) -> None:
    with running(tmp_path, OPENED) as program:
        program.capture()
        found = program.records()
        assert found.keys() == {"small", "large", "empty", "log", "read", "mapped", "partly"}
        for name in found:
            assert program.content(name) == (program.folder / name).read_bytes(), name
        assert found["mapped"].in_memory
        assert not found["partly"].in_memory
        assert [name for name, record in found.items() if not record.written] == ["read"]
        assert program.repository.fsck().clean


def test_each_capture_has_the_content_of_its_instant(tmp_path: Path) -> None:
    with running(tmp_path, OPENED) as program:
        expected = []
        for code in (
            "pass",
            "log.write(b'another\\n')",
            "large.seek(1 << 20); large.write(b'x')",
            "small.truncate(10)",
            "memory[0] = 3; part[8] = 4",
            "large.truncate(FILE)".replace("FILE", str(FILE_PART)),
            "small.seek(0); small.write(b'b' * 200_000)",
            "log.truncate(0); log.write(b'new')",
            "os.unlink('small'); small = open('small', 'wb', buffering=0); small.write(b'other')",
        ):
            program.run(code)
            commit = program.capture().commit
            expected.append((commit, {name: (program.folder / name).read_bytes() for name in program.records()}))
        for commit, files in expected:
            assert {name: program.content(name, commit) for name in files} == files
        assert program.repository.fsck().clean


def test_a_process_that_does_nothing_has_the_same_tree_again_and_its_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, OPENED.partition("partly =")[0]) as program:
        settle()
        program.capture()
        program.capture()
        before = program.repository.show("HEAD", f"proc/{program.process.pid}/contents")
        for module in (open_files, file_uses):
            monkeypatch.setattr(module, "opened", lambda use: pytest.fail(f"{use.text} is read again"))
        program.capture()
        assert program.repository.show("HEAD", f"proc/{program.process.pid}/contents") == before


def test_a_line_more_in_a_large_log_costs_no_more_than_a_part(tmp_path: Path) -> None:
    with running(tmp_path, f"log = open('log', 'ab', buffering=0); log.write(os.urandom({LARGE}))") as program:
        first = program.capture()
        assert first.bytes_stored > LARGE
        for _ in range(3):
            program.run("log.write(b'one more line')")
            assert program.capture().bytes_stored < LARGE // 8
        assert program.content("log") == (program.folder / "log").read_bytes()


def test_a_change_in_a_large_file_costs_no_more_than_a_part(tmp_path: Path) -> None:
    with running(tmp_path, f"file = open('file', 'w+b', buffering=0); file.write(os.urandom({LARGE}))") as program:
        settle()
        program.capture()
        program.run("file.seek(3_000_000); file.write(b'change')")
        settle()
        assert program.capture().bytes_stored < LARGE // 8
        assert program.content("file") == (program.folder / "file").read_bytes()


def test_another_session_stores_only_what_has_changed(tmp_path: Path) -> None:
    with running(tmp_path, f"file = open('file', 'ab', buffering=0); file.write(os.urandom({LARGE}))") as program:
        settle()
        program.capture()
        program.run("file.write(b'more')")
        settle()
        program.recorder.__exit__(None, None, None)
        with Recorder(program.repository, program.process.pid, Options(scratch=tmp_path)) as other:
            assert other.capture().bytes_stored < LARGE // 2
        program.recorder.__enter__()
        assert program.content("file") == (program.folder / "file").read_bytes()


def test_files_above_the_limit_are_named_without_a_warning(tmp_path: Path) -> None:
    code = "file = open('file', 'wb'); file.truncate(3000); other = open('other', 'wb'); other.truncate(2000)"
    with running(tmp_path, code, file_content=2000) as program:
        recorded = program.capture()
        assert program.content("other") == bytes(2000)
        assert program.content("file") is None
        assert program.records()["file"].reason == "it has 3000 bytes, and up to 2000 are kept (--file-content)"
        assert not any("file" in (record.get("resource") or "") for record in recorded.unsaved)


def test_nothing_is_kept_where_nothing_is_wanted(tmp_path: Path) -> None:
    with running(tmp_path, OPENED, file_content=0) as program:
        program.capture()
        assert program.image().section("contents") == ()


def test_what_the_kernel_makes_up_is_left_alone(tmp_path: Path) -> None:
    code = "file = open('/proc/self/coredump_filter', 'r+'); other = open('/proc/self/oom_score_adj', 'r')"
    with running(tmp_path, code) as program:
        program.capture()
        assert not any(content.path.startswith("/proc") for content in contents(program.image()))


def test_a_lease_is_not_broken(tmp_path: Path) -> None:
    code = (
        "import fcntl, signal; broken = []; signal.signal(signal.SIGIO, lambda *_: broken.append(1));"
        "open('file', 'wb').write(b'leased'); file = open('file', 'r+b'); fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)"
    )
    with running(tmp_path, code) as program:
        program.capture()
        program.run("assert not broken and fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_WRLCK")
        assert "lease" in (program.records()["file"].reason or "")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    with running(tmp_path, "file = open('file', 'w'); file.write('x'); file.flush(); os.chmod('file', 0o200)") as program:
        recorded = program.capture()
        assert program.records()["file"].reason == "it cannot be read: Permission denied"
        assert any("file" in record["resource"] for record in recorded.unsaved)


# Files that change while they are copied


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """between(name, action): something happens when prepare, or before finish, of the contents is done."""

    def install(name: str, action: Callable[[], None]) -> None:
        original = getattr(OpenFiles, name)

        def also(self: OpenFiles, *arguments: object) -> object:
            if name == "finish":
                action()
            result = original(self, *arguments)
            if name != "finish":
                action()
            return result

        monkeypatch.setattr(OpenFiles, name, also)

    return install


CHANGED = "file = open('file', MODE, buffering=0); file.write(b'a' * SIZE)"


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_what_is_appended_before_the_stop_is_in_the_image(
    mode: str, size: int, tmp_path: Path, between: Callable[..., None]
) -> None:
    """By the process or by others; of a large file to which it can only append, what was copied before is kept."""
    with running(tmp_path, CHANGED.replace("MODE", repr(mode)).replace("SIZE", str(size))) as program:
        path = program.folder / "file"

        def append() -> None:
            with path.open("ab") as file:
                file.write(b"more")

        between("prepare", append)
        for _ in range(2):
            program.capture()
            if mode == "ab" or size < LARGE or program.content("file") is not None:
                assert program.content("file") == path.read_bytes()
            else:
                assert program.records()["file"].reason == "it was written while it was copied"


@pytest.mark.parametrize("size", [1000, LARGE])
def test_what_is_appended_after_the_stop_is_not_in_the_image(size: int, tmp_path: Path, between: Callable[..., None]) -> None:
    with running(tmp_path, CHANGED.replace("MODE", "'ab'").replace("SIZE", str(size))) as program:
        path = program.folder / "file"
        sizes = []

        def append() -> None:
            sizes.append(path.stat().st_size)
            with path.open("ab") as file:
                file.write(b"more")

        between("prepare", append)
        between("finish", append)
        for _ in range(3):
            program.capture()
            assert program.content("file") == path.read_bytes()[: sizes[-1]]


def test_a_large_file_that_changes_all_the_time_is_named(tmp_path: Path, between: Callable[..., None]) -> None:
    with running(tmp_path, CHANGED.replace("MODE", "'w+b'").replace("SIZE", str(LARGE))) as program:

        def write() -> None:
            with (program.folder / "file").open("r+b") as file:
                file.write(os.urandom(10))

        between("prepare", write)
        between("finish", write)
        for _ in range(3):
            recorded = program.capture()
            assert program.records()["file"].reason == "it was written while it was copied"
        assert any(
            "file" in record["resource"] and record["reason"] == "it was written while it was copied" for record in recorded.unsaved
        )


def test_a_large_file_that_changed_all_the_time_is_there_when_it_no_longer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, CHANGED.replace("MODE", "'w+b'").replace("SIZE", str(LARGE))) as program:
        path = program.folder / "file"
        finish = OpenFiles.finish

        def write_first(self: OpenFiles) -> object:
            with path.open("r+b") as file:
                file.write(os.urandom(10))
            return finish(self)

        prepare = OpenFiles.prepare

        def write_then(self: OpenFiles, pids: Iterable[int]) -> None:
            prepare(self, pids)
            with path.open("r+b") as file:
                file.write(os.urandom(10))

        monkeypatch.setattr(OpenFiles, "finish", write_first)
        monkeypatch.setattr(OpenFiles, "prepare", write_then)
        program.capture()
        program.capture()
        assert program.content("file") is None
        monkeypatch.setattr(OpenFiles, "finish", finish)
        monkeypatch.setattr(OpenFiles, "prepare", prepare)
        settle()
        program.capture()
        assert program.content("file") == path.read_bytes()


def test_a_log_that_is_begun_anew_is_read_again(tmp_path: Path, between: Callable[..., None]) -> None:
    with running(tmp_path, CHANGED.replace("MODE", "'ab'").replace("SIZE", "300_000")) as program:
        between("prepare", lambda: (program.folder / "file").write_bytes(b"b" * 400_000))
        program.capture()
        assert program.content("file") == b"b" * 400_000


# Files that a server gives out, which may be one of the processes


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are taken for such."""
    monkeypatch.setattr(open_files, "kinds", lambda mountinfo: dict.fromkeys(kinds(mountinfo), Kind.SERVED))


@pytest.mark.usefixtures("served")
def test_nothing_is_read_from_a_server_in_the_stop(tmp_path: Path, between: Callable[..., None]) -> None:
    with running(tmp_path, CHANGED.replace("MODE", "'ab'").replace("SIZE", "100")) as program:
        program.capture()
        assert program.content("file") == b"a" * 100
        path = program.folder / "file"
        between("prepare", lambda: path.write_bytes(b"other"))
        recorded = program.capture()
        assert program.records()["file"].reason == "it was written while it was copied"
        assert any("file" in record["resource"] for record in recorded.unsaved)


@pytest.mark.usefixtures("served")
def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    @contextmanager
    def waiting(use: object) -> Iterator[int]:
        answers.wait()
        raise FileNotFoundError(2, "too late")
        yield 0

    monkeypatch.setattr(file_uses, "opened", waiting)
    monkeypatch.setattr(file_uses, "_PATIENCE", 0.01)
    with running(tmp_path, CHANGED.replace("MODE", "'ab'").replace("SIZE", "100")) as program:
        program.capture()
        assert program.records()["file"].reason == "it cannot be read: its file server does not answer"
    answers.set()


def test_every_process_of_a_tree_has_the_content(tmp_path: Path) -> None:
    code = (
        "import signal; log = open('log', 'ab', buffering=0); log.write(b'begun'); ends = os.pipe(); child = os.fork();"
        "child == 0 and (log.write(b', by two'), os.write(ends[1], b'1'), signal.pause()); os.read(ends[0], 1)"
    )
    with running(tmp_path, code, tree=True) as program:
        program.capture()
        snapshot = program.repository.load("HEAD")
        assert len(snapshot.processes) == 2
        for process in snapshot.processes:
            (content,) = (one for one in contents(process) if one.path == str(program.folder / "log"))
            read = reader(process, content)
            assert read is not None
            assert read(0, 100) == b"begun, by two"
