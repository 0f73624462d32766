"""Copies elsewhere: over files, git's own protocol and smart HTTP, whole, shallow and light."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_model import BASE, Model, own_pages

from vcsimg.errors import StoreError
from vcsimg.store import Repository

History = list[tuple[str, dict[int, bytes]]]


@pytest.fixture
def history(repo: Repository) -> History:
    model = Model()
    captures = []
    for step in range(12):
        model.write(BASE + step * 5000, b"capture %d" % step)
        captures.append((model.capture(repo), model.content()))
    repo.close()
    return captures


class _Backend(http.server.BaseHTTPRequestHandler):
    """git http-backend(1) as CGI."""

    root = ""

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _serve

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http_url(repo: Repository, history: History) -> Iterator[str]:
    """A smart HTTP server on loopback for the folder of the test's repository."""
    subprocess.run(["git", "-C", repo.path, "config", "http.receivepack", "true"], check=True)
    handler = type("Handler", (_Backend,), {"root": str(repo.path.parent)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/repo"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def daemon_url(repo: Repository, history: History) -> Iterator[str]:
    """A git daemon on loopback."""
    if not shutil.which("git-daemon") and not Path(_exec_path(), "git-daemon").exists():
        pytest.skip("git daemon is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = repo.path.parent
    daemon = subprocess.Popen(
        [
            Path(_exec_path(), "git-daemon"),
            "--export-all",
            "--listen=127.0.0.1",
            f"--port={port}",
            f"--base-path={base}",
            "--reuseaddr",
        ],
        stderr=subprocess.DEVNULL,
    )
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        threading.Event().wait(0.01)
    yield f"git://127.0.0.1:{port}/repo"
    daemon.terminate()
    daemon.wait()


def _exec_path() -> str:
    return subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()


def check(repo: Repository, captures: History) -> None:
    for commit, pages in captures:
        assert own_pages(repo.load(commit)) == pages


@pytest.mark.parametrize("transport", ["file", "http_url", "daemon_url"])
def test_a_full_clone(repo: Repository, history: History, tmp_path: Path, transport: str, request: pytest.FixtureRequest) -> None:
    url = str(repo.path) if transport == "file" else request.getfixturevalue(transport)
    copy = Repository.clone(url, tmp_path / "copy")
    check(copy, history)
    assert [capture.id for capture in copy.log()] == [commit for commit, _ in reversed(history)]
    assert copy.fsck().clean


def test_a_shallow_clone(repo: Repository, history: History, tmp_path: Path) -> None:
    copy = Repository.clone(str(repo.path), tmp_path / "copy", depth=1)
    assert len(list(copy.log())) == 1
    check(copy, history[-1:])


@pytest.mark.parametrize("transport", ["file", "http_url"])
def test_a_light_clone_fetches_what_it_looks_at(
    repo: Repository, history: History, tmp_path: Path, transport: str, request: pytest.FixtureRequest
) -> None:
    """The whole log is there, contents come with the captures that are loaded; git's own gc takes nothing away."""
    url = str(repo.path) if transport == "file" else request.getfixturevalue(transport)
    copy = Repository.clone(url, tmp_path / "copy", light=True)
    assert len(list(copy.log())) == len(history)
    assert copy.complete(history[5][0]) > 0
    check(copy, [history[5], history[2]])
    subprocess.run(["git", "-C", copy.path, "gc", "-q", "--prune=now"], check=True)
    fresh = Repository.open(copy.path)
    check(fresh, history)


def test_new_captures_are_fetched_and_pushed(repo: Repository, history: History, tmp_path: Path) -> None:
    copy = Repository.clone(str(repo.path), tmp_path / "copy")
    model = Model()
    model.tip, model.stored, model.pages = history[-1][0], dict(history[-1][1]), dict(history[-1][1])
    model.write(BASE, b"newer")
    commit = model.capture(repo)
    copy.fetch()
    check(copy, [(commit, model.content())])
    other = Model(pid=9)
    other.write(BASE, b"from the copy")
    back = other.capture(copy, branch="other.9")
    copy.push(branches=["other.9"], confirmed=True)
    assert own_pages(repo.load(back), 9) == other.content()


def test_the_first_push_to_a_place_must_be_confirmed(repo: Repository, history: History, tmp_path: Path) -> None:
    target = Repository.init(tmp_path / "target")
    with pytest.raises(StoreError, match="never pushed") as caught:
        repo.push(str(target.path))
    assert "--yes" in str(caught.value.remedy)
    assert target.branches() == []
    repo.push(str(target.path), confirmed=True)
    check(target, history)
    repo.push(str(target.path))


def test_a_push_over_http(repo: Repository, history: History, http_url: str, tmp_path: Path) -> None:
    copy = Repository.clone(http_url, tmp_path / "copy")
    model = Model(pid=9)
    model.write(BASE, b"from afar")
    commit = model.capture(copy, branch="other.9")
    copy.push(branches=["other.9"], confirmed=True)
    assert own_pages(repo.load(commit), 9) == model.content()


def test_a_bundle(repo: Repository, history: History, tmp_path: Path) -> None:
    repo.bundle(tmp_path / "all.bundle")
    assert (tmp_path / "all.bundle").stat().st_mode & 0o077 == 0
    check(Repository.clone(str(tmp_path / "all.bundle"), tmp_path / "copy"), history)


def test_a_remote_that_is_not_there(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="git fetch failed"):
        Repository.clone(str(tmp_path / "nothing"), tmp_path / "copy")
    with pytest.raises(StoreError, match="git fetch failed"):
        repo.fetch("nowhere")
