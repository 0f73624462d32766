"""Bytes and time of stored captures, against what else keeps versions of a process: zstd --patch-from, restic, borg and git, given cores.

python -m tests.bench.store [--json FILE] [--captures N]

Each program is stopped, captured, dumped by gdb's gcore, and let go; eight times, half a second apart. The peers get the cores.
Peers that are not installed are left out. Then a process of 1 GiB is read back: whole, from a capture to the next, 64 bytes of it. Then a small
process is captured many times: what the last capture costs, beside the tenth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.capture import Target, build
from tests.bench.harness import print_table, write_json
from vcsimg.capture import Options
from vcsimg.image.pages import ImageMemory
from vcsimg.image.snapshot import Snapshot
from vcsimg.recording import Recorder
from vcsimg.store import Repository

CAPTURES = 8
PORT = "7791"
PYTHON = {
    "python": "d={}\ni=0\nwhile 1:\n for _ in range(2000):\n  d['key%d'%i]=[i,str(i*7),{'a':i}]; i+=1\n time.sleep(.01)",
    "sqlite": "import sqlite3,random\nc=sqlite3.connect(':memory:')\nc.execute('create table t(a integer primary key,b text,c real)')\n"
    "c.execute('create index i on t(b)')\ni=0\nwhile 1:\n for _ in range(500):\n"
    "  c.execute('insert into t values(?,?,?)',(i,'name %d'%random.randrange(10**6),random.random())); i+=1\n c.commit(); time.sleep(.01)",
    "numpy": "import numpy as np\na=np.random.rand(600,600); b=np.random.rand(600,600)\n"
    "while 1:\n b=np.tanh(a@b*.1); a[0]+=1; time.sleep(.02)",
}


@contextmanager
def program(name: str, folder: Path) -> Iterator[int]:
    """A workload that runs; gives its pid."""
    started = []
    if name == "redis":
        server = subprocess.Popen(["redis-server", "--port", PORT, "--save", "", "--dir", folder], stdout=subprocess.DEVNULL)
        started.append(server)
        time.sleep(0.5)
        fill = ["redis-benchmark", "-p", PORT, "-q", "-r", "200000", "-d", "64"]
        subprocess.run([*fill, "-n", "200000", "-t", "set,lpush,hset,zadd", "-P", "16"], stdout=subprocess.DEVNULL, check=True)
        load = [*fill, "-n", "100000", "-t", "set,get,incr,lpush,lpop,sadd,hset,zadd", "-l", "-c", "20"]
        started.append(subprocess.Popen(load, stdout=subprocess.DEVNULL))
    else:
        started.append(subprocess.Popen([sys.executable, "-c", "import time\n" + PYTHON[name]]))
    time.sleep(2)
    yield started[0].pid
    for process in reversed(started):
        process.kill()
        process.wait()


def captured(name: str, folder: Path) -> dict[str, float]:
    """Bytes and seconds a capture for one workload: ours and the peers'. `vcsimg_s`: all of a capture; `storing_s`: what peers do, to store what is
    at hand already."""
    cores: list[Path] = []
    seconds, changed, written = [], 0, []
    busy: list[float] = []
    storing: list[float] = []
    with (
        Repository.init(folder / "repo") as repository,
        program(name, folder) as pid,
        Recorder(repository, pid, Options(scratch=folder)) as recorder,
    ):
        commit = repository.commit

        def timed(snapshot: Snapshot, **named: Any) -> str:
            read = tuple(replace(process, changes=iter(list(process.changes or ()))) for process in snapshot.processes)
            began, processor = time.monotonic(), time.process_time()
            made = commit(replace(snapshot, processes=read), **named)
            busy.append(time.process_time() - processor)
            storing.append(time.monotonic() - began)
            return made

        repository.commit = timed  # type: ignore[method-assign]
        for _ in range(CAPTURES + 1):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            before = repository.bytes_written
            recorded = recorder.capture()
            written.append(repository.bytes_written - before)
            subprocess.run(["gcore", "-o", folder / f"core{len(cores)}", str(pid)], check=True, capture_output=True)
            cores.append(folder / f"core{len(cores)}.{pid}")
            os.kill(pid, signal.SIGCONT)
            if len(cores) > 1:
                seconds.append(recorded.wall)
                changed += recorded.pages_changed * 4096
            time.sleep(0.5)
    found = {
        "changed_mb": changed / CAPTURES / 1e6,
        "vcsimg": sum(written[1:]) / CAPTURES,
        "vcsimg_s": statistics.mean(seconds),
        "storing_s": statistics.mean(storing[1:]),
        "stored_mb_s": changed / 1e6 / sum(busy[1:]),
    }
    for peer, run in PEERS.items():
        if shutil.which(peer.split()[0]):
            stored, seconds_of_peer = run(folder, cores)
            found[peer] = stored / CAPTURES
            found[f"{peer}_s"] = seconds_of_peer / CAPTURES
    return found


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _patch_from(folder: Path, cores: list[Path]) -> tuple[float, float]:
    total = 0
    began = time.monotonic()
    for old, new in pairwise(cores):
        patch = folder / "patch.zst"
        subprocess.run(["zstd", "-q", "-3", "--long=30", "-f", f"--patch-from={old}", new, "-o", patch], check=True)
        total += patch.stat().st_size
    return total, time.monotonic() - began


def _each(to: Path, cores: list[Path], store: Path, add: Callable[[], object]) -> tuple[float, float]:
    """Bytes that a store grows by from the second core on, and the seconds that `add` takes for these; every core is put at one place, as a
    backup tool sees it."""
    first, seconds = 0, 0.0
    for index, core in enumerate(cores):
        shutil.copyfile(core, to)
        began = time.monotonic()
        add()
        if index == 0:
            first = _size(store)
        else:
            seconds += time.monotonic() - began
    return _size(store) - first, seconds


def _restic(folder: Path, cores: list[Path]) -> tuple[float, float]:
    environment = {**os.environ, "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(folder / "restic")}
    call = lambda *words: subprocess.run(["restic", "-q", *words], env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    call("init")
    return _each(folder / "core", cores, folder / "restic", lambda: call("backup", str(folder / "core")))


def _borg(folder: Path, cores: list[Path]) -> tuple[float, float]:
    call = lambda *words: subprocess.run(["borg", *words], check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    call("init", "-e", "none", str(folder / "borg"))
    return _each(
        folder / "core", cores, folder / "borg", lambda: call("create", f"{folder / 'borg'}::{time.time()}", str(folder / "core"))
    )


def _git(folder: Path, cores: list[Path]) -> tuple[float, float]:
    git = folder / "git"
    subprocess.run(["git", "init", "-q", git], check=True)
    return _each(git / "core", cores, git / ".git", lambda: subprocess.run(["git", "-C", git, "add", "core"], check=True))


PEERS = {"zstd --patch-from": _patch_from, "restic": _restic, "borg": _borg, "git add": _git}


def reading(folder: Path, mib: int = 1024) -> dict[str, float]:
    """What reading costs, of a process of 1 GiB, half of it incompressible, 1 % of it written between captures."""
    ids = []
    with (
        Repository.init(folder / "repo") as repository,
        Target(build(folder), mib) as target,
        Recorder(repository, target.pid, Options(scratch=folder)) as recorder,
    ):
        for _ in range(6):
            ids.append(recorder.capture().commit)
            target.dirty(1)
    reader = Repository.open(folder / "repo")

    def rebuild(snapshot: Snapshot) -> int:
        """Read all pieces. Returns their bytes."""
        memory = snapshot.processes[0].memory
        assert isinstance(memory, ImageMemory)
        pieces = (memory.pieces.piece(number) for number in memory.pieces.numbers())
        return sum(int(piece.own.sum()) << 12 for piece in pieces if piece is not None)

    began = time.process_time()
    size = rebuild(reader.load(ids[-1]))
    rebuilt = time.process_time() - began
    steps = []
    walker = reader.walker(ids[0])
    rebuild(walker.snapshot)
    for commit in ids[1:]:
        began = time.process_time()
        walker.move(commit)
        steps.append(time.process_time() - began)
    return {
        "rebuild_mb_s": size / 1e6 / rebuilt,
        "step_ms": min(steps) * 1e3,
        "step_against_rebuild": rebuilt / min(steps),
        "cold_64_bytes_ms": min(_cold(folder / "repo", commit) for commit in ids) * 1e3,
    }


_COLD = """
import sys, time
from vcsimg.store import Repository
import numpy, vcsimg.store.load, vcsimg.store.source
began = time.monotonic()
process = Repository.open(sys.argv[1]).load(sys.argv[2]).processes[0]
region = max(process.regions, key=lambda region: region.end - region.start)
process.memory.read((region.start + region.end) // 2, 64)
print(time.monotonic() - began)
"""


def _cold(repository: Path, commit: str) -> float:
    """Seconds for 64 bytes in the middle of the largest region, in a process that has just begun; its files are not in memory either."""
    for path in repository.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
    done = subprocess.run([sys.executable, "-c", _COLD, repository, commit], check=True, capture_output=True, text=True)
    return float(done.stdout)


def many(captures: int, folder: Path) -> dict[str, float]:
    """A small process, captured often: does the last capture cost what the tenth did, and can any be rebuilt as fast?

    Times are the processor's: the machine may be busy. `early` are captures 10 to 50 of a second such process, made in turn with the
    `last` ones of the first. `pure` is what the newest deltas of all pieces of all captures take.
    """
    most_packs, first = 0, 0
    ids = []
    early, last = [], []
    with (
        Repository.init(folder / "repo") as repository,
        Target(build(folder), 4) as target,
        Recorder(repository, target.pid, Options(scratch=folder)) as recorder,
    ):
        for _ in range(captures):
            target.dirty(1)
            ids.append(recorder.capture().commit)
            first = first or repository.bytes_written
            most_packs = max(most_packs, len(list((repository.path / "objects/pack").glob("*.pack"))))
        (folder / "second").mkdir()
        with (
            Repository.init(folder / "second" / "repo") as fresh,
            Target(build(folder / "second"), 4) as second,
            Recorder(fresh, second.pid, Options(scratch=folder / "second")) as beside,
        ):
            for number in range(50):
                for each, process, times in ((recorder, target, last), (beside, second, early)):
                    process.dirty(1)
                    began = time.process_time()
                    each.capture()
                    if number >= 10:
                        times.append(time.process_time() - began)
    reader = Repository.open(folder / "repo")

    def rebuild(commit: str) -> float:
        began = time.process_time()
        for process in reader.load(commit).processes:
            assert isinstance(process.memory, ImageMemory)
            for number in process.memory.pieces.numbers():
                process.memory.pieces.piece(number)
        return time.process_time() - began

    chosen = [*ids[1:4], *ids[5 :: max(1, captures // 50)]]
    rounds = [[rebuild(commit) for commit in chosen] for _ in range(6)]  # in turn: the machine's other work hits all of them
    rebuilt = [min(times) for times in zip(*rounds, strict=True)]
    log = min(_processor_time([sys.executable, "-m", "vcsimg", "--repo", folder / "repo", "log", "-n", "20"]) for _ in range(3))
    checkouts = [_checkout(folder, commit) for commit in chosen[:: max(1, len(chosen) // 10)]]
    total = _size(folder / "repo" / "objects")
    captures += len(last) + 10
    pure = _pure(folder / "repo")
    return {
        "captures": captures,
        "early_cpu_ms": min(early) * 1e3,
        "early_cpu_median_ms": statistics.median(early) * 1e3,
        "last_cpu_ms": min(last) * 1e3,
        "last_cpu_median_ms": statistics.median(last) * 1e3,
        "log_20_command_cpu_ms": log * 1e3,
        "most_packs": most_packs,
        "fastest_rebuild_cpu_ms": min(rebuilt) * 1e3,
        "slowest_rebuild_cpu_ms": max(rebuilt) * 1e3,
        "slowest_checkout_against_fastest": max(checkouts) / min(checkouts),
        "bytes_a_capture": (total - first) / captures,
        "pure_bytes_a_capture": pure / captures,
        "bytes_against_pure_and_first": total / (pure + first),
    }


def _checkout(folder: Path, commit: str) -> float:
    """Processor seconds of `vcsimg checkout`, the whole command: the least of three."""
    times = []
    for _ in range(3):
        to = folder / "checkout"
        command = [sys.executable, "-m", "vcsimg", "--repo", folder / "repo", "checkout", commit, "--raw", to]
        times.append(_processor_time(command))
        shutil.rmtree(to)
    return min(times)


def _processor_time(command: list[str | Path]) -> float:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _pure(repository: Path) -> int:
    """Bytes of the newest delta of each piece that a capture changed, over all captures: no merge, no new keyframe."""
    git = ["git", "-C", str(repository)]
    logged = subprocess.run(
        [
            *git,
            "log",
            "--raw",
            "-r",
            "--no-abbrev",
            "--no-renames",
            "--diff-filter=A",
            "--format=%x00",
            "HEAD",
            "--",
            "*.xor",
            "*.patch",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    newest: list[str] = []
    for commit in logged.split("\0"):
        found: dict[str, tuple[str, str]] = {}
        for line in filter(None, commit.splitlines()):
            facts, path = line.split("\t")
            piece, _, name = path.rpartition("/")
            found[piece] = max(found.get(piece, ("", "")), (name, facts.split()[3]))
        newest += [oid for _, oid in found.values()]
    sizes = subprocess.run(
        [*git, "cat-file", "--batch-check=%(objectsize)"], input="\n".join(newest), check=True, capture_output=True, text=True
    ).stdout
    return sum(map(int, sizes.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--captures", type=int, default=2000)
    options = parser.parse_args()
    results: dict[str, object] = {}
    rows = []
    for name in ("redis", *PYTHON):
        if name == "redis" and not shutil.which("redis-server"):
            print("redis-server is not installed: left out")
            continue
        with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as folder:
            found = captured(name, Path(folder))
        results[name] = found
        peers = [f"{found[peer] / 1e6:.2f}" if peer in found else "-" for peer in PEERS]
        faster = [f"{found['restic_s'] / found[ours]:.1f}" if "restic_s" in found else "-" for ours in ("storing_s", "vcsimg_s")]
        speed = [f"{found['vcsimg_s'] * 1e3:.0f}", f"{found['storing_s'] * 1e3:.0f}", f"{found['stored_mb_s']:.0f}", *faster]
        rows.append([name, f"{found['changed_mb']:.1f}", f"{found['vcsimg'] / 1e6:.3f}", *peers, *speed])
    columns = [
        "program",
        "pages changed",
        "vcsimg",
        *PEERS,
        "ms for it",
        "storing alone",
        "MB/s a core",
        "restic / storing",
        "restic / all",
    ]
    print_table("MB a capture, captures 0.5 s apart", columns, rows)
    with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as folder:
        read = reading(Path(folder))
    results["reading"] = read
    print_table("Reading 1 GiB", ["", "value"], [[name, f"{value:.1f}"] for name, value in read.items()])
    with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as folder:
        often = many(options.captures, Path(folder))
    results["many"] = often
    print_table("A small process, captured often", ["", "value"], [[name, f"{value:.1f}"] for name, value in often.items()])
    write_json(options.json, "store", results)


if __name__ == "__main__":
    main()
