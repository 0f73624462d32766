"""Real programs at work, recorded while they are, and what their captures hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capture.comparison import assert_same, read_everything
from tests.conftest import Target, wait_for
from vcsimg.capture.target import ProcessCapture
from vcsimg.history import search
from vcsimg.process import HeldProcess
from vcsimg.store import Repository

Start = Callable[..., Target]
Record = Callable[..., list[str]]


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.fail(f"{program} is not installed: see tools/debian-packages")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    needs("redis-server")
    socket = tmp_path / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        yield server.pid, socket
    finally:
        server.kill()
        server.wait()


def test_redis_under_load(redis: tuple[int, Path], store: Repository, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("redis-benchmark")
    pid, socket = redis
    truths = []
    secure = ProcessCapture.secure_memory

    def read_too(self: ProcessCapture, held: HeldProcess, engine: str) -> None:
        secure(self, held, engine)
        truths.append(read_everything(held.pid, held.memory))

    monkeypatch.setattr(ProcessCapture, "secure_memory", read_too)
    load = subprocess.Popen(
        ["redis-benchmark", "-s", str(socket), "-t", "set,lpush,hset", "-n", "150000", "-r", "20000", "-q"],
        stdout=subprocess.DEVNULL,
    )
    commits = record(pid, 6, lambda: time.sleep(0.1))
    assert load.wait(60) == 0
    for commit, (regions, contents) in zip(commits, truths, strict=True):
        process = store.load(commit).processes[0]
        # The kernel writes the processor's number into struct rseq after a borrow: in the thread control block, next to libc.
        own = [region for region in regions if region.name in ("[heap]", "") and region.end - region.start > 1 << 20]
        assert own
        assert_same(process, (regions, {region.start: contents[region.start] for region in own}))


def test_sqlite_in_a_transaction(start: Start, store: Repository, record: Record, tmp_path: Path) -> None:
    needs("sqlite3")
    target = start(shutil.which("sqlite3"), tmp_path / "base.db")
    target.send("create table t(a); begin; insert into t values ('the row that was never committed'); select 'ready';\n")
    assert target.line() == "ready"
    snapshot = store.load(record(target.pid)[0])
    assert list(search(snapshot, b"the row that was never committed"))
    files = {item.get("path") for item in snapshot.processes[0].section("files")}
    assert str(tmp_path / "base.db") in files
    assert str(tmp_path / "base.db-journal") in files


def test_pipeline_with_tree(start: Start, store: Repository, record: Record) -> None:
    target = start("/bin/bash", "-c", "echo ready; (sleep 600 | cat | cat) & wait")
    assert target.line() == "ready"
    wait_for(lambda: len(Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()) >= 1)
    time.sleep(0.3)
    snapshot = store.load(record(target.pid, tree=True)[0])
    names = sorted(process.name for process in snapshot.processes)
    assert names.count("cat") == 2
    assert "sleep" in names
    assert snapshot.processes[0].pid == target.pid
    known = {process.pid for process in snapshot.processes}
    assert all(process.parent in known for process in snapshot.processes[1:])
    for process in snapshot.processes[1:]:
        subprocess.run(["kill", "-9", str(process.pid)], check=False)


def test_python_interpreter_grows(start: Start, store: Repository, record: Record, tmp_path: Path) -> None:
    script = tmp_path / "grow.py"
    script.write_text(
        "import sys\n"
        "data = {}\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    data.update((f'key-{len(data)}', 'needle-%d' % len(data)) for _ in range(2000))\n"
        "    print('done', flush=True)\n"
    )
    target = start(sys.executable, script)
    target.line()
    commits = record(target.pid, 4, lambda: (target.send("x\n"), target.line()))
    assert not list(search(store.load(commits[0]), b"needle-5999"))
    assert list(search(store.load(commits[3]), b"needle-5999"))
