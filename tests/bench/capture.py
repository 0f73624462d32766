"""Pause and time of captures, against gdb's gcore on the same target in the same run.

python -m tests.bench.capture [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from tests.bench.harness import print_table, write_json
from vcsimg.capture import Options
from vcsimg.recording import Recorder
from vcsimg.store import Repository

MIB = 1 << 20
_TURNS = 3
_WARM_SECONDS = 5.0
_BLOCK = 4
"""Seconds in which there are captures, or none; the first is not counted."""
_Result = TypeVar("_Result")


def build(folder: Path) -> Path:
    program = folder / "target"
    source = Path(__file__).with_name("target.c")
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source], check=True)
    return program


class Target:
    """The target program; dirty() returns when it has written."""

    def __init__(self, program: Path, mib: int, threads: int = 0) -> None:
        self._process = subprocess.Popen([program, str(mib), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self._answer()

    def dirty(self, percent: float) -> None:
        self._tell(f"{percent}")

    def grow(self, mib: int) -> None:
        self._tell(f"+{mib}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def recorder(folder: Path, pid: int, engine: str = "auto") -> Iterator[Recorder]:
    path = folder / "history"
    Repository.init(path)
    try:
        with Recorder(Repository.open(path), pid, Options(scratch=path, engine=engine)) as made:
            yield made
    finally:
        shutil.rmtree(path, ignore_errors=True)


def gcore(folder: Path, pid: int, *, compressed: bool = False) -> float:
    """Seconds that gcore takes, in which the target is stopped; compressed: with zstd -1 -T2 behind it, which is how one would keep it."""
    core = folder / "core"
    os.sync()  # what was written before is not waited for here
    began = time.monotonic()
    subprocess.run(["gcore", "-o", core, str(pid)], check=True, capture_output=True)
    if compressed:
        subprocess.run(["zstd", "-q", "-1", "-T2", "-f", f"{core}.{pid}", "-o", f"{core}.zst"], check=True)
    seconds = time.monotonic() - began
    for path in folder.glob("core*"):
        path.unlink()
    return seconds


def cpu_seconds() -> float:
    """CPU time of this process and of helpers that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def series(folder: Path, program: Path, mib: int, percent: float, rounds: int, threads: int = 0, grows: int = 0) -> dict[str, Any]:
    """One target, captured again and again with `percent` of its pages dirtied in between, and `grows` MiB added."""
    with Target(program, mib, threads) as target:
        stop = gcore(folder, target.pid)
        stored = gcore(folder, target.pid, compressed=True)
        pauses, walls, sizes = [], [], []
        with recorder(folder, target.pid) as made:
            os.sync()
            first = made.capture()
            began = cpu_seconds()
            for _ in range(rounds):
                target.dirty(percent)
                if grows:
                    target.grow(grows)
                done = made.capture()
                pauses.append(done.pause)
                walls.append(done.wall)
                sizes.append(done.bytes_stored)
            cpu = (cpu_seconds() - began) / rounds
        pauses.sort()
        return {
            "mib": mib,
            "percent": percent,
            "threads": threads,
            "grows": grows,
            "engine": done.engine,
            "first_pause": first.pause,
            "first_wall": first.wall,
            "pause": statistics.median(pauses),
            "pause_p99": pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))],
            "wall": statistics.median(walls),
            "bytes": statistics.median(sizes),
            "cpu": cpu,
            "gcore": stop,
            "gcore_zstd": stored,
        }


def report(rows: list[dict[str, Any]]) -> None:
    print_table(
        "captures: ms; gcore: its stop; first: first capture",
        [
            "target",
            "engine",
            "pause",
            "p99",
            "gcore/pause",
            "wall",
            "gcore/wall",
            "KiB",
            "first pause",
            "first wall",
            "/gcore|zstd",
        ],
        [
            [
                f"{row['mib']} MiB, {row['percent']:g} %"
                + (f", {row['threads']} threads" if row["threads"] else "")
                + (f", {row['grows']} MiB more" if row["grows"] else ""),
                row["engine"],
                f"{row['pause'] * 1e3:.2f}",
                f"{row['pause_p99'] * 1e3:.2f}",
                f"{row['gcore'] / row['pause']:.0f}",
                f"{row['wall'] * 1e3:.1f}",
                f"{row['gcore'] / row['wall']:.1f}",
                f"{row['bytes'] / 1024:.0f}",
                f"{row['first_pause'] * 1e3:.1f}",
                f"{row['first_wall'] * 1e3:.0f}",
                f"{row['first_wall'] / row['gcore_zstd']:.2f}",
            ]
            for row in rows
        ],
    )
    print_table(
        "the unit of paper 1 (50 ms of pause for each MB of process, 800 MHz Pentium III)",
        ["target", "pause ms/MB", "CPU ms/MB"],
        [
            [
                f"{row['mib']} MiB, {row['percent']:g} %",
                f"{row['pause'] * 1e3 / (row['mib'] * MIB / 1e6):.5f}",
                f"{row['cpu'] * 1e3 / (row['mib'] * MIB / 1e6):.4f}",
            ]
            for row in rows
        ],
    )


def captured_each_second(made: Recorder, work: Callable[[], _Result]) -> tuple[_Result, list[float]]:
    """What some work gives, and the seconds of pause of the captures beside it: half a second after it began, and then every second."""
    pauses = []
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work)
        for due in itertools.count(0.5):
            wait([result], timeout=max(0.0, began + due - time.monotonic()))
            if result.done():
                return result.result(), pauses
            pauses.append(made.capture().pause)
    raise AssertionError


def lost_in_blocks(made: Recorder, pid: int, work: Callable[[], object]) -> list[float]:
    """What part of a server's requests is lost by one capture a second, beside a recording that goes on: in one load, seconds with captures and seconds
    without follow each other, and each block with is compared with those before and after. Its read(2)s are counted, one for each request."""

    def reads() -> tuple[float, int]:
        return time.monotonic(), int(Path(f"/proc/{pid}/io").read_text().split()[5])

    made.capture()
    rates: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work)
        while not result.done():
            for second in range(_BLOCK):
                if second == 1:
                    before, count = reads()
                due = time.monotonic() + 1
                if len(rates) % 2:
                    made.capture()
                time.sleep(max(0.0, due - time.monotonic()))
            now, served = reads()
            rates.append((served - count) / (now - before))
    # The load was over in the last.
    return [1 - rates[at] / statistics.mean((rates[at - 1], rates[at + 1])) for at in range(1, len(rates) - 2, 2)]


def redis(folder: Path, seconds: float, blocks: float, *, apart: bool = False) -> dict[str, Any] | None:
    """Throughput and latency of redis under redis-benchmark, without and with one capture a second: a machine that has neighbours is not always equally
    fast, so what is lost is told by blocks of one load of `blocks` seconds, and what the benchmark says itself by turns of a load of `seconds` each.
    There, too, a recording goes on for seconds before its turn counts: what its beginning takes, other rows tell. `apart`: server and client have one
    processor for the two of them, and vcsimg has the others."""
    if shutil.which("redis-server") is None or shutil.which("redis-benchmark") is None:
        print("redis: skipped, redis-server is not installed")
        return None
    all_processors = os.sched_getaffinity(0)
    theirs = {min(all_processors)} if apart else all_processors
    ours = all_processors - theirs or all_processors
    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(
        ["redis-server", *options], stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, theirs)
    )
    os.sched_setaffinity(0, ours)
    try:
        while not socket.exists():
            time.sleep(0.05)

        def load(count: int) -> tuple[float, float]:
            """(requests a second, p99 in ms)"""
            command = ["redis-benchmark", "-s", str(socket), "-t", "set", "-r", "200000", "-d", "100", "-n", str(count), "--csv"]
            told = subprocess.run(
                command, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, theirs)
            )
            lines = told.stdout.splitlines()
            names, values = ([cell.strip('"') for cell in line.split(",")] for line in (lines[0], lines[-1]))
            found = dict(zip(names, values, strict=True))
            return float(found["rps"]), float(found["p99_latency_ms"])

        def recorded(count: int) -> tuple[float, float]:
            """The same with one capture a second, by a recording that goes on for some seconds already."""
            with recorder(folder, server.pid) as made:
                made.capture()
                captured_each_second(made, lambda: load(int(rate * _WARM_SECONDS)))
                result, found = captured_each_second(made, lambda: load(count))
            pauses.extend(found)
            return result

        rate, _ = load(200_000)
        count = int(rate * seconds)
        pauses: list[float] = []
        alone, beside = [load(count)], []
        for _ in range(_TURNS):
            beside.append(recorded(count))
            alone.append(load(count))
        turns = sorted(
            1 - between[0] / statistics.mean((before[0], after[0]))
            for before, between, after in zip(alone, beside, alone[1:], strict=False)
        )
        with recorder(folder, server.pid) as made:
            losses = lost_in_blocks(made, server.pid, lambda: load(int(rate * blocks)))
        return {
            "rps_alone": statistics.median(rate for rate, _ in alone),
            "p99_alone_ms": statistics.median(p99 for _, p99 in alone),
            "rps_recorded": statistics.median(rate for rate, _ in beside),
            "p99_recorded_ms": statistics.median(p99 for _, p99 in beside),
            "lost": statistics.mean(losses),
            "lost_error": statistics.stdev(losses) / len(losses) ** 0.5,
            "losses": losses,
            "turns": turns,
            "pauses": pauses,
        }
    finally:
        os.sched_setaffinity(0, all_processors)
        server.terminate()
        server.wait()


def run(quick: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as name:
        folder = Path(name)
        program = build(folder)
        plan = [(64, 1.0, 20, 0, 0)] if quick else [
            (256, 1.0, 40, 0, 0), (1024, 0.0, 40, 0, 0), (1024, 1.0, 100, 0, 0), (1024, 10.0, 10, 0, 0), (1024, 50.0, 5, 0, 0),
            (4096, 1.0, 20, 0, 0), (16, 1.0, 20, 1000, 0), (256, 1.0, 12, 0, 64),
        ]  # fmt: skip
        results["series"] = [series(folder, program, *row) for row in plan]
        report(results["series"])
        for apart in (False, True):
            served = redis(folder, *((2.0, 36.0) if quick else (8.0, 132.0)), apart=apart)
            if served is None:
                break
            results["redis apart" if apart else "redis"] = served
            print_table(
                "redis-benchmark SET, one capture a second"
                + (", server and client on one processor, vcsimg on the others" if apart else ""),
                ["", "requests/s", "p99 ms"],
                [
                    ["alone", f"{served['rps_alone']:.0f}", f"{served['p99_alone_ms']:.2f}"],
                    ["recorded", f"{served['rps_recorded']:.0f}", f"{served['p99_recorded_ms']:.2f}"],
                    ["lost, in turns", " ".join(f"{one * 100:.1f}" for one in served["turns"]) + " %", ""],
                    [
                        f"lost, in {len(served['losses'])} blocks",
                        f"{served['lost'] * 100:.1f} % ± {served['lost_error'] * 100:.1f}",
                        "",
                    ],
                ],
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Captures against gcore")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a small target, to see that it works")
    options = parser.parse_args()
    write_json(options.json, "capture", run(options.quick))


if __name__ == "__main__":
    main()
