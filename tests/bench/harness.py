"""What the benchmarks share: timing, a table on the terminal, a JSON file for those who compare.

A benchmark is a module that is run as `python -m tests.bench.NAME [--json FILE]`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def best_seconds(action: Callable[[], object], *, seconds: float = 0.4, rounds: int = 20) -> float:
    """Seconds that one call takes: the best of some rounds, which take about `seconds` together. The machine may do other things
    meanwhile; the best round shows what the action costs."""
    started = time.perf_counter()
    action()
    first = time.perf_counter() - started
    if first > seconds:
        return first
    repeats = max(1, int(seconds / rounds / max(first, 1e-7)))
    best = first
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(repeats):
            action()
        best = min(best, (time.perf_counter() - started) / repeats)
    return best


def context_switches(pid: int, tid: int | None = None) -> int:
    """Voluntary and other context switches of a thread so far (/proc/PID/task/TID/status)."""
    lines = Path(f"/proc/{pid}/task/{tid or pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def machine() -> dict[str, object]:
    """Where the numbers come from."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ": ?")
    return {
        "cpu": model.partition(":")[2].strip(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def size_name(size: int) -> str:
    """8 B, 64 KiB, 1 MiB"""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    print(f"\n{title}\n")
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def write_json(path: str | None, name: str, results: dict[str, object]) -> None:
    """The results of one benchmark with the machine that they come from; nothing when there is no path."""
    if path is not None:
        Path(path).write_text(json.dumps({"benchmark": name, "machine": machine(), "results": results}, indent=1) + "\n")
