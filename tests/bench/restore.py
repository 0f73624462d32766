"""How quick a capture runs again: `python -m tests.bench.restore [--json FILE]`.

From the call of restore() until it returns, that is until all processes run, with the store opened already. Best of some rounds; beside it
the CPU time of the restorer, which other load does not change as much. Where the time of the large process goes is shown step
by step, against copying its memory once within one process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.bench.harness import print_table, write_json
from tests.conftest import compile_target
from tests.restore.reviving import Captured, capture, revive
from vcsimg.restore import restoring

MIB = 1 << 20
LARGE = 1 << 30
ROUNDS = 5
PROGRAMS: dict[str, tuple[str, ...]] = {
    "smallest process": ("regions", "0"),
    "1000 regions more": ("regions", "1000"),
    "process of 1 GiB": ("memory", str(LARGE)),
    "tree of 20 processes": ("tree", "19"),
}
_INTERPRETER = "import sys; hold = [bytes([i % 251]) * 4096 for i in range(3000)]; print('ready', flush=True); sys.stdin.readline()"


class Timed:
    """Seconds spent in functions of the restore, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def watching(self, owner: object, name: str, title: str) -> Iterator[None]:
        """While this is entered, calls of one function are timed."""
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*args: object, **options: object) -> object:
            started = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - started

        with mock.patch.object(owner, name, timed):
            yield


def once(captured: Captured) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, of one restore."""
    started, used = time.perf_counter(), time.process_time()
    revived = revive(captured.repository, captured.commit)
    found = time.perf_counter() - started, time.process_time() - used
    revived.close()
    return found


def measure(command: Sequence[str | Path], folder: Path) -> tuple[float, float, Captured]:
    captured = capture(command, folder)
    captured.kill()
    rounds = [once(captured) for _ in range(ROUNDS)]
    return min(wall for wall, _ in rounds), min(cpu for _, cpu in rounds), captured


def steps(captured: Captured) -> dict[str, float]:
    """Where the time of one restore goes."""
    timed = Timed()
    with (
        timed.watching(restoring, "fill", "content"),
        timed.watching(restoring, "restore_vdso", "vdso"),
        timed.watching(restoring.MemoryRestorer, "map", "mappings"),
        timed.watching(restoring._Run, "_make_tree", "skeletons"),
        timed.watching(restoring._Run, "_restore_rest", "settings"),
        timed.watching(restoring.Descriptors, "make_all", "descriptors"),
    ):
        total, _ = once(captured)
    timed.seconds["all else"] = total - sum(timed.seconds.values())
    return timed.seconds


def memcpy_seconds() -> float:
    """Copying as much as the large process has, into memory that is there already."""
    source, target = memoryview(bytearray(os.urandom(MIB)) * 256), memoryview(bytearray(256 * MIB))
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        target[:] = source
        best = min(best, time.perf_counter() - started)
    return best * LARGE / (256 * MIB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results: dict[str, object] = {}
    rows = []
    with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as name:
        folder = Path(name)
        commands: dict[str, list[str | Path]] = {
            title: [compile_target("bench_restore"), *words] for title, words in PROGRAMS.items()
        }
        commands["interpreter with 20 MiB"] = [sys.executable, "-c", _INTERPRETER]
        for title, command in commands.items():
            wall, cpu, captured = measure(command, folder)
            results[title] = {"seconds": wall, "cpu_seconds": cpu}
            rows.append([title, f"{wall * 1e3:.0f} ms", f"{cpu * 1e3:.0f} ms"])
            if title == "process of 1 GiB":
                results["steps"] = parts = {**steps(captured), "memcpy": memcpy_seconds()}
            captured.repository.close()
        print_table("Restore until it runs", ["what", "best", "CPU of the restorer"], rows)
        print_table("1 GiB, step by step", ["step", "time"], [[step, f"{took * 1e3:.0f} ms"] for step, took in parts.items()])
    write_json(options.json, "restore", results)


if __name__ == "__main__":
    main()
