"""How quick the ways to another process's memory are: `python -m tests.bench.memory [--json FILE] [--svg FILE]`.

Every way reads and writes 8 bytes to 64 MiB, and reads 512 pages that are scattered over memory; memcpy within one process shows what
the machine can do at all. Buffers are used again and again, so up to some MiB they are in the caches on both sides.

The shared window has three rows. Reading into the window itself, and writing from it: its purpose. Into a buffer elsewhere: a
second copy. "one stop a copy": the thread is stopped and started again for each copy, as the paper has it. PTRACE_PEEKDATA is
measured in a C program too, to tell what Python adds. Beyond 1 MiB, ptrace words are not measured: a word costs what it cost before.

Then a frozen child is read from end to end, piece by piece, as a capture does, and each piece is used: dropped, or compressed as a
XOR with few changed bytes, or compressed as it is. The window's time includes opening and closing it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from tests.bench.harness import best_seconds, context_switches, print_table, size_name, write_json
from tests.bench.plot import line_plots
from tests.conftest import Target, compile_target
from tests.memory.conftest import Layout, layout_of
from vcsimg.memory import AutoMemory, Memory, ProcMemory, PtraceMemory, SharedMemory, VmMemory
from vcsimg.memory.protocol import Reader
from vcsimg.process import HeldProcess, hold
from vcsimg.process.frozen import fork_frozen

MIB = 1 << 20
SIZES = [8, 64, 4 << 10, 64 << 10, MIB, 8 * MIB, 64 * MIB]
SCATTERED = "512 pages"
PAGE = 4096
PAGES = 512
AREA = 96 * MIB
WORDS_LIMIT = MIB
PIECE = 2 * MIB
FROZEN = 256 * MIB

Results = dict[str, dict[str, Any]]
Seconds = dict[str, dict[str, float]]
"""Seconds of one transfer, by the way and the size."""


def scattered(address: int) -> np.ndarray:
    """Ranges of 512 pages in no order."""
    pages = random.Random(1).sample(range(AREA // PAGE), PAGES)
    return np.array([(address + page * PAGE, PAGE) for page in pages], np.uint64)


def measure(memory: Memory, layout: Layout, buffer: memoryview, name: str, reads: Seconds, writes: Seconds, limit: int) -> None:
    """All sizes, for one way."""
    reads[name], writes[name] = {}, {}
    for size in SIZES:
        if size > limit:
            reads[name][size_name(size)] = reads[name][size_name(limit)] * size / limit
            writes[name][size_name(size)] = writes[name][size_name(limit)] * size / limit
            continue
        part = buffer[:size]
        reads[name][size_name(size)] = best_seconds(lambda part=part: memory.read_into(layout.area, part))
        writes[name][size_name(size)] = best_seconds(lambda part=part: memory.write(layout.area, part))
    ranges, part = scattered(layout.area), buffer[: PAGES * PAGE]
    reads[name][SCATTERED] = best_seconds(lambda: memory.read_many(ranges, part))


def measure_memcpy(reads: Seconds) -> None:
    source, buffer = memoryview(bytearray(os.urandom(AREA))), memoryview(bytearray(64 * MIB))
    found = reads["memcpy"] = {}
    for size in SIZES:
        there, here = source[:size], buffer[:size]

        def copy(here: memoryview = here, there: memoryview = there) -> None:
            here[:] = there

        found[size_name(size)] = best_seconds(copy)
    offsets = [int(address) for address in scattered(0)[:, 0]]

    def gather() -> None:
        for index, offset in enumerate(offsets):
            buffer[index * PAGE : index * PAGE + PAGE] = source[offset : offset + PAGE]

    found[SCATTERED] = best_seconds(gather)


def measure_c_peek(layout: Layout, reads: Seconds) -> None:
    program = compile_target("mem_peek", "-O2")
    found = reads["ptrace words, in C"] = {}
    for size in SIZES:
        words = min(size, WORDS_LIMIT)
        output = subprocess.run([program, str(layout.pid), str(layout.area), str(words)], check=True, capture_output=True)
        found[size_name(size)] = float(output.stdout) * size / words
    found[SCATTERED] = found[size_name(MIB)] * PAGES * PAGE / MIB


def switches(memory: Memory, held: HeldProcess, layout: Layout, buffer: memoryview, rounds: int) -> float:
    """Context switches for each MiB read, a MiB at a time, of us and of the thread that is read."""
    before = context_switches(os.getpid()) + context_switches(held.pid)
    for _ in range(rounds):
        memory.read_into(layout.area, buffer[:MIB])
    return (context_switches(os.getpid()) + context_switches(held.pid) - before) / rounds


def look_at_all(memory: Memory, layout: Layout, buffer: memoryview) -> float:
    """Seconds to read a MiB and add up its words: what was copied by another CPU must come over to ours."""
    words = np.frombuffer(buffer[:MIB], np.uint64)

    def both() -> None:
        memory.read_into(layout.area, buffer[:MIB])
        words.sum()

    return best_seconds(both)


def pieces_of(layout: Layout, share: int) -> list[np.ndarray]:
    """Ranges of each piece of FROZEN bytes: one page in `share`, scattered, or all of it."""
    chosen = random.Random(2)
    pieces = []
    for start in range(layout.area, layout.area + FROZEN, PIECE):
        if share == 1:
            pieces.append(np.array([(start, PIECE)], np.uint64))
        else:
            pages = sorted(chosen.sample(range(PIECE // PAGE), PIECE // PAGE // share))
            pieces.append(np.array([(start + page * PAGE, PAGE) for page in pages], np.uint64))
    return pieces


def measure_frozen(layout: Layout) -> dict[str, dict[str, float]]:
    """Seconds to read a frozen child and use what was read, by what is done with it and by the way."""
    with hold(layout.pid) as held:
        child = fork_frozen(held)
    scratch = np.empty(PIECE, np.uint8)
    compressor = zstandard.ZstdCompressor(level=1)

    def drop(view: memoryview) -> None:
        pass

    def compress_difference(view: memoryview) -> None:
        new = np.frombuffer(view, np.uint8)
        difference = np.bitwise_xor(new, new, out=scratch[: len(new)])
        difference[::997] = 1
        compressor.compress(difference)

    def compress(view: memoryview) -> None:
        compressor.compress(view)

    ways: dict[str, Callable[[], Reader]] = {
        "/proc/PID/mem": lambda: ProcMemory(child.pid),
        "process_vm": lambda: VmMemory(child.pid, stopped=True),
        "window, filled ahead": lambda: SharedMemory(child, 2 * PIECE),
    }
    found: dict[str, dict[str, float]] = {}
    for share, pages in ((1, "all pages"), (10, "1 page in 10")):
        pieces = pieces_of(layout, share)
        for use, what in ((drop, "dropped"), (compress_difference, "XOR, zstd"), (compress, "zstd")):
            for name, opened in ways.items():

                def read(opened: Callable[[], Reader] = opened, use: Callable[[memoryview], None] = use) -> None:
                    with opened() as memory:
                        for view in memory.stream(pieces):  # noqa: B023
                            use(view)

                found.setdefault(f"{pages}, {what}", {})[name] = best_seconds(read)
    child.close()
    return found


def best_of(passes: int) -> Results:
    """The smallest of each number: the machine may do other things meanwhile, and never for the whole time."""
    merged = run()
    for _ in range(passes - 1):
        merge(merged, run())
    return merged


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict):
            merge(into[key], value)
        else:
            into[key] = min(into[key], value)


def run() -> Results:
    """Measure everything once."""
    reads: Seconds = {}
    writes: Seconds = {}
    per_mib: dict[str, float] = {}
    looked: dict[str, float] = {}
    measure_memcpy(reads)
    target = Target(compile_target("mem_layout"), str(AREA))
    try:
        layout = layout_of(target)
        measure_c_peek(layout, reads)
        elsewhere = memoryview(bytearray(64 * MIB))
        with hold(layout.pid) as held:
            ways: dict[str, Callable[[], Memory]] = {
                "ptrace words": lambda: PtraceMemory(held.pid),
                "/proc/PID/mem": lambda: ProcMemory(held.pid),
                "process_vm": lambda: VmMemory(held.pid, stopped=True),
                "window": lambda: SharedMemory(held, 64 * MIB),
                "window, buffer elsewhere": lambda: SharedMemory(held),
                "window, one stop a copy": lambda: SharedMemory(held, 64 * MIB, linger=False),
                "auto": lambda: AutoMemory(held, window=64 * MIB),
            }
            for name, opened in ways.items():
                memory = opened()
                buffer = elsewhere
                if isinstance(memory, SharedMemory) and memory.size:
                    buffer = memory.buffer(64 * MIB)
                if isinstance(memory, AutoMemory):
                    buffer = memoryview(memory.buffer(64 * MIB))
                measure(memory, layout, buffer, name, reads, writes, WORDS_LIMIT if name == "ptrace words" else 64 * MIB)
                per_mib[name] = switches(memory, held, layout, buffer, 3 if name == "ptrace words" else 1000)
                if name != "ptrace words":
                    looked[name] = look_at_all(memory, layout, buffer)
                del buffer
                memory.close()
    finally:
        target.end()
    target = Target(compile_target("mem_layout"), str(FROZEN))
    try:
        frozen = measure_frozen(layout_of(target))
    finally:
        target.end()
    return {
        "read": reads,
        "write": writes,
        "context_switches_per_mib": per_mib,
        "read_1_mib_and_sum": looked,
        "frozen_child": frozen,
    }


def rate(seconds: float, size: int) -> str:
    """12.3 GB/s, or the time of a small transfer."""
    return f"{seconds * 1e6:.2f} µs" if size <= 64 else f"{size / seconds / 1e9:.3g} GB/s"


def report(results: Results) -> None:
    columns = [size_name(size) for size in SIZES]
    sizes = dict(zip(columns, SIZES, strict=True)) | {SCATTERED: PAGES * PAGE}
    for direction in ("read", "write"):
        found = results[direction]
        names = [*columns, SCATTERED] if direction == "read" else columns
        rows = [[way, *(rate(times[name], sizes[name]) for name in names)] for way, times in found.items()]
        print_table(direction, ["", *names], rows)
    rows = [[way, f"{count:.3g}"] for way, count in results["context_switches_per_mib"].items()]
    print_table("context switches for each MiB, both processes", ["", "switches"], rows)
    rows = [[way, rate(seconds, MIB)] for way, seconds in results["read_1_mib_and_sum"].items()]
    print_table("read a MiB and add up its words", ["", "together"], rows)
    frozen = results["frozen_child"]
    ways = list(next(iter(frozen.values())))
    rows = [[use, *(f"{times[way] * 1e3:.1f} ms" for way in ways)] for use, times in frozen.items()]
    print_table(f"a frozen child of {size_name(FROZEN)}, read and used", ["", *ways], rows)


def plot(results: Results) -> str:
    panels = {
        f"{direction}: GB/s": {
            way: [(size, size / times[size_name(size)] / 1e9) for size in SIZES] for way, times in results[direction].items()
        }
        for direction in ("read", "write")
    }
    return line_plots(panels, "bytes in one call", "GB/s", lambda size: size_name(int(size)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways to another process's memory")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--passes", type=int, default=2, help="measure everything so often, and report the best")
    parser.add_argument("--svg", metavar="FILE", help="the plot, such as docs/memory-bench.svg")
    options = parser.parse_args()
    results = best_of(options.passes)
    report(results)
    write_json(options.json, "memory", results)
    if options.svg:
        Path(options.svg).write_text(plot(results))


if __name__ == "__main__":
    main()
