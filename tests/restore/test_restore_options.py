"""The options of `vcsimg restore`, and captures of what was restored."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import compile_target, wait_for
from tests.restore.reviving import Captured, capture, heed_signals, revive
from tests.restore.screen import ROOT, VCSIMG
from tests.restore.test_restore_programs import as_user
from vcsimg.capture import Options
from vcsimg.kernel import procfs
from vcsimg.recording import Recorder
from vcsimg.store import Repository

PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.parametrize("name", ["tree", "threads", "terminals", "signals", "ipc", "cases_sockets unix_credentials_queued"])
def test_restored_captured_and_restored_again(name: str, tmp_path: Path) -> None:
    """The processes keep the ids that they know, though vcsimg sees others."""
    program, *words = name.split()
    command = [sys.executable, PROGRAMS / "tree.py"] if name == "tree" else [compile_target(f"restore_{program}"), *words]
    captured = capture(command, tmp_path)
    captured.kill()
    commit = captured.commit
    for _ in range(2):
        revived = revive(captured.repository, commit)
        with Recorder(captured.repository, revived.restored.pid, Options(scratch=tmp_path, tree=True)) as recorder:
            commit = recorder.capture().commit
        revived.close()
    assert revive(captured.repository, commit).finish() == ("verified\n", 42)
    captured.repository.close()


ECHO = 'import sys\nprint("ready", flush=True)\nfor line in sys.stdin: print("got", line, end="", flush=True)\nsys.exit(42)\n'
WRITER = (
    'import sys\nfile = open("file", "a+")\nfile.write("before\\n"); file.flush()\nprint("ready", flush=True)\n'
    'sys.stdin.readline()\nfile.write("after\\n"); file.flush()\nprint("verified", flush=True)\nsys.exit(42)\n'
)


@pytest.fixture
def captured(tmp_path: Path) -> Iterator[Captured]:
    """A program that says what it is told."""
    found = capture([sys.executable, "-c", ECHO], tmp_path)
    found.kill()
    yield found
    found.repository.close()


def restoring(captured: Captured, *options: str | Path) -> list[str]:
    return [*VCSIMG, "restore", "--repo", str(captured.repository.path), *map(str, options), captured.commit]


def run(captured: Captured, *options: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(restoring(captured, *options), input=text, capture_output=True, text=True, timeout=60, env=environment)


def restored_pid(done: subprocess.CompletedProcess[str]) -> int:
    words = done.stderr.split()
    return int(words[words.index("process") + 1])


def state(pid: int) -> str:
    try:
        return procfs.stat(pid).state
    except (OSError, ProcessLookupError):
        return ""


def test_in_the_foreground_with_our_descriptors(captured: Captured) -> None:
    done = run(captured, text="one\ntwo\n")
    assert (done.stdout, done.stderr, done.returncode) == ("got one\ngot two\n", "", 42)


def test_files_instead_of_our_descriptors(captured: Captured, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file\n")
    done = run(captured, "--stdin", tmp_path / "in", "--stdout", tmp_path / "out", "--stderr", tmp_path / "err", text="not this\n")
    assert (done.stdout, done.returncode) == ("", 42)
    assert (tmp_path / "out").read_text() == "got from a file\n"
    assert (tmp_path / "err").read_text() == ""


def test_a_file_that_cannot_be_opened_is_named(captured: Captured, tmp_path: Path) -> None:
    done = run(captured, "--stdin", tmp_path / "missing")
    assert done.returncode == 1
    assert f"{tmp_path / 'missing'}" in done.stderr


def test_killed_by_a_signal(captured: Captured) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        restoring(captured), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, preexec_fn=heed_signals
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
        process.send_signal(signal.SIGTERM)
        # The latter if vcsimg was not done yet with what comes after letting it go.
        assert process.wait(30) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_detached(captured: Captured, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    done = run(captured, "--detach", "--stdin", fifo, "--stdout", tmp_path / "out")
    assert done.returncode == 0
    pid = restored_pid(done)
    assert f"process {pid} runs on branch " in done.stderr
    os.write(keep, b"later\n")
    wait_for(lambda: (tmp_path / "out").read_text() == "got later\n", 30)
    os.close(keep)
    wait_for(lambda: state(pid) in ("", "Z"), 30)


def test_detached_and_stopped_until_it_is_told_to_go_on(captured: Captured, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\n")
    done = run(captured, "--detach", "--stopped", "--stdin", tmp_path / "in", "--stdout", tmp_path / "out")
    pid = restored_pid(done)
    assert f"process {pid} is stopped on branch " in done.stderr
    wait_for(lambda: state(pid) == "T", 30)
    assert (tmp_path / "out").read_text() == ""
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: (tmp_path / "out").read_text() == "got one\n", 30)
    wait_for(lambda: state(pid) in ("", "Z"), 30)


@pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")
def test_host_pids(captured: Captured) -> None:
    done = run(captured, "--host-pids", text="one\n")
    assert (done.stdout, done.returncode) == ("got one\n", 42), done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")
def test_host_pids_that_are_in_use_are_named(tmp_path: Path) -> None:
    captured = capture([sys.executable, "-c", ECHO], tmp_path)
    try:
        done = run(captured, "--host-pids")
        assert done.returncode == 1
        assert f"process {captured.pid}: the pid is in use" in done.stderr
    finally:
        captured.kill()
        captured.repository.close()


def changed_file(tmp_path: Path, change: str) -> Captured:
    captured = capture([sys.executable, "-c", WRITER], tmp_path)
    captured.kill()
    if change == "grown":
        with open(tmp_path / "file", "a") as file:
            file.write("meanwhile\n")
    elif change == "truncated":
        os.truncate(tmp_path / "file", 2)
    elif change == "replaced":
        (tmp_path / "new").write_text("before\n")
        (tmp_path / "new").rename(tmp_path / "file")
    return captured


@pytest.mark.parametrize("change", ["grown", "truncated", "replaced"])
def test_files_that_have_changed_are_noted_and_kept(change: str, tmp_path: Path) -> None:
    captured = changed_file(tmp_path, change)
    before = (tmp_path / "file").read_text()
    done = run(captured, text="go\n")
    assert (done.stdout, done.returncode) == ("verified\n", 42)
    word = {"grown": "grown from 7 to 17 bytes", "truncated": "been truncated from 7 to 2 bytes", "replaced": "been replaced"}[
        change
    ]
    assert word in done.stderr
    assert (tmp_path / "file").read_text() == before + "after\n"
    captured.repository.close()


@pytest.mark.parametrize("change", ["grown", "truncated", "replaced"])
def test_files_that_have_changed_can_be_refused(change: str, tmp_path: Path) -> None:
    captured = changed_file(tmp_path, change)
    done = run(captured, "--files", "fail", text="go\n")
    assert done.returncode == 1
    assert f"{tmp_path / 'file'}" in done.stderr
    assert "since the capture" in done.stderr
    assert "--files keep" in done.stderr
    captured.repository.close()


def test_a_file_that_has_grown_can_be_brought_back(tmp_path: Path) -> None:
    captured = changed_file(tmp_path, "grown")
    done = run(captured, "--files", "rollback", text="go\n")
    assert (done.stdout, done.returncode) == ("verified\n", 42), done.stderr
    assert (tmp_path / "file").read_text() == "before\nafter\n"
    captured.repository.close()


CONNECTED = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.recv(4, socket.MSG_PEEK)
print("ready", flush=True)
sys.stdin.readline()
try:
    data = b""
    while part := connection.recv(100): data += part
    print("end", data.decode(), flush=True)
except ConnectionResetError:
    print("reset", flush=True)
"""


@pytest.mark.parametrize(("policy", "text"), [("reset", "reset\n"), ("close", "end kept\n")])
def test_connections_to_the_world_outside(policy: str, text: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", CONNECTED, str(server.getsockname()[1])]
        (tmp_path / "program").write_text(CONNECTED)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        accepted, _ = server.accept()
        accepted.sendall(b"kept")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        captured = capture_running(process, tmp_path)
        captured.kill()
        accepted.close()
        done = run(captured, "--tcp", policy, text="go\n")
        assert (done.stdout, done.returncode) == (text, 0), done.stderr
        captured.repository.close()


def capture_running(process: subprocess.Popen[bytes], folder: Path) -> Captured:
    repository = Repository.init(folder / "repository")
    with Recorder(repository, process.pid, Options(scratch=folder, tree=True)) as recorder:
        return Captured(repository, recorder.capture().commit, process.pid, "ready", process)


def test_a_pipe_to_a_process_outside_is_refused_unless_closed(tmp_path: Path) -> None:
    script = (
        'import os, sys\nprint("ready", flush=True)\nsys.stdin.readline()\n'
        'print("end" if os.read(int(sys.argv[1]), 1) == b"" else "?", flush=True)\n'
    )
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(reading)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(reading,)
    )
    os.close(reading)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    captured = capture_running(process, tmp_path)
    captured.kill()
    os.close(writing)
    done = run(captured, text="go\n")
    assert done.returncode == 1
    assert f"process {process.pid} fd {reading} (pipe:[" in done.stderr
    assert "the other end of the pipe belongs to no process of the image" in done.stderr
    assert "--outside close" in done.stderr
    done = run(captured, "--outside", "close", text="go\n")
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr
    captured.repository.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")
def test_seccomp_filters(tmp_path: Path) -> None:
    captured = capture([compile_target("restore_seccomp")], tmp_path)
    captured.kill()
    done = run(captured, text="go\n")
    assert (done.stdout, done.stderr, done.returncode) == ("verified\n", "", 42)
    captured.repository.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")
def test_what_was_not_asked_under_a_filter_is_missing_knowingly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when vcsimg had no CAP_SYS_ADMIN when it captured, but the filters are known from elsewhere."""
    monkeypatch.setattr("vcsimg.process.lending._can_suspend", lambda thread, options: False)
    captured = capture([compile_target("restore_seccomp"), "no handlers"], tmp_path)
    captured.kill()
    done = run(captured, text="go\n")
    assert done.returncode == 1
    assert f"process {captured.pid}: its signal handlers and more are not in the capture" in done.stderr
    assert "--incomplete" in done.stderr
    done = run(captured, "--incomplete", text="go\n")
    assert (done.stdout, done.returncode) == ("verified\n", 42), done.stderr
    captured.repository.close()


def test_filters_that_could_not_be_captured_are_refused(tmp_path: Path, as_nobody: list[str]) -> None:
    done = as_user(as_nobody, tmp_path, [compile_target("restore_seccomp")])
    assert "RestoreError" in done.stderr
    assert "seccomp" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")
def test_the_first_process_of_a_pid_namespace(tmp_path: Path) -> None:
    """As in a container: it is process 1 again, and its children have the next numbers."""
    program = compile_target("restore_first")
    command = ["unshare", "--pid", "--fork", "--kill-child", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_signals) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (pid,) = procfs.children(process.pid)
        with (
            Repository.init(tmp_path / "repository") as repository,
            Recorder(repository, pid, Options(scratch=tmp_path, tree=True)) as recorder,
        ):
            commit = recorder.capture().commit
        process.kill()
    with Repository.open(tmp_path / "repository") as repository:
        assert revive(repository, commit).finish() == ("verified\n", 42)


def test_variables_with_other_values(tmp_path: Path) -> None:
    captured = capture([compile_target("restore_poke", "-g")], tmp_path)
    captured.kill()
    words = ["counter=-5", "color=GREEN", "point.x=0x10", "point.y=0.25", "greeting=hex:6166746572"]
    done = run(captured, *(word for poke in words for word in ("--poke", poke)), text="\n")
    assert (done.stdout, done.returncode) == ("-5 7 16 0.25 aftere\n", 42), done.stderr
    for wrong, reason in (
        ("nothing=1", "no variable nothing"),
        ("counter=much", "much is no value for long"),
        ("point=1", "only hex:BYTES"),
        ("greeting=hex:" + 9 * "00", "it has 8 bytes, not 9"),
        ("color=300000000000", "is no value for enum color"),
    ):
        done = run(captured, "--poke", wrong, text="\n")
        assert done.returncode != 0
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
    captured.repository.close()
