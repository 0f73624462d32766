"""TCP connections to the world outside that go on: `vcsimg capture --kill`, then `vcsimg restore --tcp keep`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import home_of_nobody
from tests.restore.reviving import Captured, heed_signals
from tests.restore.screen import ROOT, VCSIMG
from tests.restore.test_restore_options import CONNECTED, ECHO, capture_running, run
from vcsimg.capture import Options, Session
from vcsimg.errors import VcsimgError
from vcsimg.store import Repository

privileged = pytest.mark.skipif(os.getuid() != 0, reason="needs privilege")

TALKER = """
import hashlib, socket, sys
address = sys.argv[1], int(sys.argv[2])
connection = socket.create_connection(address)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
connection.recv(4, socket.MSG_PEEK)
connection.setblocking(False)
digest, sent = hashlib.sha256(), 0
block = bytes(range(256)) * 40
while sys.argv[3] == "full":
    try:
        count = connection.send(block)
    except BlockingIOError:
        break
    digest.update(block[:count])
    sent += count
connection.setblocking(True)
print("ready", flush=True)
sys.stdin.readline()
print("going", flush=True)
assert connection.recv(4) == b"kept"
assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
connection.sendall(block)
digest.update(block)
connection.shutdown(socket.SHUT_WR)
answer = b""
while part := connection.recv(1000):
    answer += part
assert answer == digest.hexdigest().encode() + b" %d" % (sent + len(block)), answer
print("verified", flush=True)
sys.exit(42)
"""

DIGEST = """
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
connection.sendall(b"kept")
sys.stdin.readline()
digest, size = hashlib.sha256(), 0
while part := connection.recv(1 << 16):
    digest.update(part)
    size += len(part)
connection.sendall(digest.hexdigest().encode() + b" %d" % size)
connection.close()
print("done", flush=True)
"""


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The other side: counts what it is sent, and tells; it reads when it has been sent a line."""
    command = [sys.executable, "-c", DIGEST, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed_signals) as process:
        yield process
        process.kill()


def start_talker(peer: subprocess.Popen[str], address: str, *words: str) -> subprocess.Popen[bytes]:
    assert peer.stdout is not None
    command = [sys.executable, "-c", TALKER, address, peer.stdout.readline().strip(), *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_signals)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def capture_and_end(process: subprocess.Popen[bytes], folder: Path) -> Captured:
    Repository.init(folder / "repository").close()
    command = [*VCSIMG, "capture", "--kill", "--repo", str(folder / "repository"), str(process.pid)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    process.wait(30)
    repository = Repository.open(folder / "repository")
    return Captured(repository, done.stdout.split()[0], process.pid, "ready", process)


@privileged
@pytest.mark.parametrize(("peer", "words"), [("127.0.0.1", ("full",)), ("::1", ("empty",))], indirect=["peer"])
def test_a_connection_goes_on_and_the_other_side_notices_nothing(
    peer: subprocess.Popen[str], words: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What waits in both directions is kept: received, sent and not read by the other side, not even sent yet."""
    address = "::1" if "::1" in request.node.name else "127.0.0.1"
    process = start_talker(peer, address, *words)
    captured = capture_and_end(process, tmp_path)
    try:
        assert process.returncode == -9
        assert peer.stdin is not None
        assert peer.stdout is not None
        failed = run(captured, "--tcp", "keep", "--poke", "0x10=1")
        assert "there is no memory" in failed.stderr  # late: the connection was made, and ended in silence
        restored = subprocess.Popen(
            [*VCSIMG, "restore", "--tcp", "keep", "--repo", str(captured.repository.path), captured.commit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=heed_signals,
        )
        assert restored.stdin is not None
        assert restored.stdout is not None
        assert restored.stderr is not None
        restored.stdin.write("go\n")
        restored.stdin.flush()
        # Before that, what the other side sends would be answered by a machine that knows of no connection.
        assert restored.stdout.readline() == "going\n", restored.stderr.read()
        peer.stdin.write("go\n")
        peer.stdin.flush()
        done = restored.communicate(timeout=60)
        assert (done[0], restored.returncode) == ("verified\n", 42), done[1]
        assert peer.stdout.readline() == "done\n"
    finally:
        captured.kill()
        captured.repository.close()


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A program with a connection to us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", CONNECTED, str(server.getsockname()[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_signals) as process:
            accepted, _ = server.accept()
            accepted.sendall(b"kept")
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with accepted:
                yield process, accepted
            process.kill()


def ends_well(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """Both sides of the connection still hear each other."""
    connection.sendall(b" on")
    connection.shutdown(socket.SHUT_WR)
    out, _ = process.communicate(b"go\n", timeout=30)
    assert out == b"end kept on\n"
    assert connection.recv(1) == b""


@privileged
def test_a_connection_that_lives_is_not_made_twice(
    connected: tuple[subprocess.Popen[bytes], socket.socket], tmp_path: Path
) -> None:
    process, connection = connected
    captured = capture_running(process, tmp_path)
    done = run(captured, "--tcp", "keep", text="go\n")
    assert done.returncode == 1
    assert f"its connection to 127.0.0.1:{connection.getsockname()[1]}: there is one from 127.0.0.1:" in done.stderr
    assert "the captured process lives" in done.stderr
    assert "--tcp reset" in done.stderr
    ends_well(process, connection)
    captured.repository.close()


def test_a_capture_that_is_not_stored_ends_nothing(
    connected: tuple[subprocess.Popen[bytes], socket.socket], tmp_path: Path
) -> None:
    process, connection = connected
    session = Session(process.pid, Options(scratch=tmp_path, tree=True, kill=True), lambda commit: pytest.fail(commit))

    def fail() -> None:
        with session, session.capture():
            raise VcsimgError("the disk is full")

    with pytest.raises(VcsimgError, match="the disk is full" if os.getuid() == 0 else "takes CAP_NET_ADMIN"):
        fail()
    connection.sendall(b" more")
    connection.shutdown(socket.SHUT_WR)
    out, _ = process.communicate(b"go\n", timeout=30)
    assert out == b"end kept more\n"


def test_processes_without_connections_are_ended_by_anybody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ECHO]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_signals)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    captured = capture_and_end(process, tmp_path)
    assert process.returncode == -9
    done = run(captured, text="one\n")
    assert (done.stdout, done.returncode) == ("got one\n", 42), done.stderr
    captured.kill()
    captured.repository.close()


def test_going_on_takes_privilege(
    connected: tuple[subprocess.Popen[bytes], socket.socket], tmp_path: Path, as_nobody: list[str]
) -> None:
    process, connection = connected
    captured = capture_running(process, tmp_path)
    home_of_nobody(tmp_path)
    subprocess.run(["chown", "-R", "65534", captured.repository.path], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = [*as_nobody, *VCSIMG, "restore", "--tcp", "keep", "--repo", str(captured.repository.path), captured.commit]
    done = subprocess.run(command, input="go\n", capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT)
    assert done.returncode == 1
    assert "going on with it takes CAP_NET_ADMIN" in done.stderr
    ends_well(process, connection)
    captured.repository.close()


@privileged
def test_a_connection_that_another_process_has_too_is_not_ended(tmp_path: Path) -> None:
    script = 'import sys\nprint("ready", flush=True)\nprint("on", sys.stdin.readline(), end="")\n'
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(ours.fileno(),),
            preexec_fn=heed_signals,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        Repository.init(tmp_path / "repository").close()
        command = [*VCSIMG, "capture", "--kill", "--repo", str(tmp_path / "repository"), str(process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 1
        assert f"process {os.getpid()}, which is not captured, has its connection to 127.0.0.1:" in done.stderr
        assert process.communicate(b"it goes\n", timeout=30)[0] == b"on it goes\n"
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"heard")
            assert ours.recv(5) == b"heard"
