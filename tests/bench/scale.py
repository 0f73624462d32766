"""How git and the store fare as a history grows: a synthetic history (trees and small blobs, no process), up to a million captures.

Run as: python tests/bench/scale.py [CAPTURES] [--json FILE]. A million takes 20 to 40 minutes and 3 GB of disk.
Each synthetic capture changes what a capture of a small process does: one thread's registers, two pieces, and the trees above.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vcsimg.store import Repository, consolidate
from vcsimg.store.layout import FORMAT_TEXT, KEYS, XOR
from vcsimg.store.objects import BLOB, COMMIT, TREE, Entry, format_commit
from vcsimg.store.pack import PackWriter
from vcsimg.store.tree import TreeEditor

STEPS = (1_000, 10_000, 100_000, 300_000, 1_000_000)
BATCH = 500
SECTIONS = ("status", "files", "signals", "limits", "timers", "credentials", "environment", "auxv", "cgroup", "namespaces")


class History:
    """A growing history on one branch, written as a recorder would, many captures to a pack."""

    def __init__(self, path: Path) -> None:
        self.repo = Repository.init(path, sync="none")
        self.path = path
        self._tree = TreeEditor(None, lambda _: {})
        self._rng = random.Random(1)
        self._tip: str | None = None
        self._chains: dict[str, list[str]] = {"7f1234800000": [], "7f1235000000": []}
        self.count = 0

    def grow(self, captures: int) -> None:
        """Add captures until there are so many."""
        packs = self.path / "objects" / "pack"
        while self.count < captures:
            writer = PackWriter(packs, self.path / "vcsimg", sync=False)
            for _ in range(min(BATCH, captures - self.count)):
                self._capture(writer)
            keep = writer.finish()
            assert keep is not None
            assert self._tip is not None
            keep.unlink()
            consolidate.merge([keep.with_suffix(".pack")], packs, self.path / "vcsimg", sync=False)
            consolidate.consolidate(self.path, sync=False)
            (self.path / "refs" / "heads" / "main").write_text(self._tip + "\n")
        self.repo = Repository.open(self.path)

    def _capture(self, writer: PackWriter) -> None:
        def put(path: tuple[str, ...], data: bytes) -> None:
            self._tree.set(path, Entry(False, writer.add(BLOB, data)))

        if self.count == 0:
            put(("format",), FORMAT_TEXT)
            put(("host",), b"host name=web1\n")
            put(("tree",), b"process pid=1 parent=0 name=small\n")
            put(("proc", "1", "map", "000000000000"), b"")
            for name in SECTIONS:
                put(("proc", "1", name), name.encode() * 20)
        registers = "".join(f"register name=r{number} value={self._rng.getrandbits(40):#x}\n" for number in range(6))
        put(("proc", "1", "threads", "1"), registers.encode() + b"register name=rest value=0x0\n" * 20)
        for piece, names in self._chains.items():
            base = ("proc", "1", "memory", piece)
            if len(names) >= 30:
                for name in names[1:17]:
                    self._tree.remove((*base, name))
                del names[1:17]
            name = f"{self.count:08x}.{XOR if names else KEYS[0]}"
            put((*base, name), self._rng.randbytes(90))
            names.append(name)
        tree = self._tree.write(lambda data: writer.add(TREE, data))
        who = f"recorder <recorder@web1> {1_700_000_000 + self.count // 10} +0000"
        text = f"small 1: 2 pages in 2 regions\n\nEngine: wp\nPause-Microseconds: {self._rng.randrange(300, 900)}\nProcess: 1\n"
        self._tip = writer.add(COMMIT, format_commit(tree, [self._tip] if self._tip else [], who, who, text)).hex()
        self.count += 1


def measure(history: History, scratch: Path) -> dict[str, float]:
    """Seconds of what people do with a history of this length, and what it takes on the disk."""
    path = history.path
    git = ["git", "-C", str(path)]
    found: dict[str, float] = {"captures": history.count}
    found["megabytes"] = sum(file.stat().st_size for file in (path / "objects").rglob("*") if file.is_file()) / 1e6
    found["packs"] = len(list((path / "objects" / "pack").glob("*.pack")))

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        found[name] = round(time.monotonic() - began, 4)

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    timed("vcsimg_log_20", lambda: list(Repository.open(path).log(limit=20)))
    middle = history.repo.resolve(f"main~{history.count // 2}")
    timed("read_one_capture", lambda: Repository.open(path).show(middle, "proc/1/threads/1"))
    timed("git_log_20", lambda: run(*git, "log", "-n", "20"))
    timed("git_diff_of_neighbours", lambda: run(*git, "diff", "--stat", "main~1", "main"))
    timed("git_log_all", lambda: run(*git, "rev-list", "--count", "main"))
    timed("git_shallow_clone", lambda: run("git", "clone", "-q", "--bare", "--depth", "1", f"file://{path}", scratch / "shallow"))
    if history.count <= 100_000:
        timed("git_clone", lambda: run("git", "clone", "-q", "--bare", f"file://{path}", scratch / "clone"))
        timed("git_gc", lambda: run("git", "-C", scratch / "clone", "gc", "-q"))
    for name in ("shallow", "clone"):
        run("rm", "-rf", scratch / name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="?", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vcsimg-scale-") as folder:
        history = History(Path(folder) / "repo")
        rows = []
        for step in STEPS:
            if step > options.captures:
                break
            began = time.monotonic()
            before = history.count
            history.grow(step)
            row = {**measure(history, Path(folder)), "ms_to_write_one": (time.monotonic() - began) / (step - before) * 1e3}
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
