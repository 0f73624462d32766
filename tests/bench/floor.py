"""How small the changes between captures can be: what is stored of the changed pages, against slower and less free ways to code them.

python -m tests.bench.floor [--json FILE] [--captures N] [PROGRAM …]

The programs are those of tests.bench.store. Each way gets the same old and new pages. Those with the old pages as dictionary lead forward
only; those over all pieces would make each piece depend on the others, as they were: none could be read alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import zstandard

from tests.bench.harness import print_table, write_json
from tests.bench.store import PYTHON, program
from vcsimg.capture import Options, Session
from vcsimg.delta import codec
from vcsimg.delta.units import Rows
from vcsimg.store import Repository

Pair = tuple[Rows, Rows]
"""Old and new contents of the pages of a piece that changed: (n, 4096) each."""


def changes(name: str, captures: int, folder: Path) -> list[list[Pair]]:
    """What captures 0.5 s apart find changed, by capture and piece."""
    found: list[list[Pair]] = []
    with Repository.init(folder / "repo") as repository, program(name, folder) as pid:
        session = Session(pid, Options(scratch=folder), repository.load, None)
        for number in range(captures + 1):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            with session.capture() as snapshot:
                process = snapshot.processes[0]
                kept = list(process.changes or ())
                # Rows that differ are copies: what a change holds is the store's when it is committed.
                pairs = [(change.old, change.new) for change in kept if number and change.old is not None]
                changed = [(old.view(np.uint64) != new.view(np.uint64)).any(axis=1) for old, new in pairs]
                found.append([(old[some], new[some]) for (old, new), some in zip(pairs, changed, strict=True) if some.any()])
                again = replace(snapshot, processes=(replace(process, changes=iter(kept)), *snapshot.processes[1:]))
                session.stored(repository.commit(again, branch=name, parents=[session.base] if session.base else []))
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
        session.close()
    return found[1:]


def _patched(old: bytes, new: bytes, level: int, **parameters: int) -> int:
    """Bytes of `new` with `old` as dictionary."""
    log = (len(old) + len(new) - 1).bit_length()
    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(new), dict_size=len(old), window_log=max(log, 10), **parameters
    )
    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return len(zstandard.ZstdCompressor(dict_data=dictionary, compression_params=chosen).compress(new))


def _joined(pairs: list[Pair]) -> tuple[bytes, bytes]:
    return b"".join(old.tobytes() for old, _ in pairs), b"".join(new.tobytes() for _, new in pairs)


def _lanes(pairs: list[Pair]) -> int:
    """The XOR, all pieces together: which words are used, and those byte lane by byte lane, at zstd's best level."""
    rows = np.concatenate([old ^ new for old, new in pairs]).view(np.uint64).reshape(-1)
    used = rows != 0
    lanes = np.ascontiguousarray(rows[used].view(np.uint8).reshape(-1, 8).T)
    return len(zstandard.ZstdCompressor(level=19).compress(np.packbits(used).tobytes() + lanes.tobytes()))


WAYS: dict[str, Callable[[list[Pair]], int]] = {
    "stored": lambda pairs: sum(len(codec.pack(old ^ new, old=old)[1]) for old, new in pairs),
    "XOR alone": lambda pairs: sum(len(codec.pack(old ^ new)[1]) for old, new in pairs),
    "XOR, all by lanes, -19": _lanes,
    "old piece as dictionary, -19": lambda pairs: sum(_patched(old.tobytes(), new.tobytes(), 19) for old, new in pairs),
    "all old pages as dictionary, -1": lambda pairs: _patched(*_joined(pairs), 1, hash_log=20, chain_log=20),
    "all old pages as dictionary, -19": lambda pairs: _patched(*_joined(pairs), 19),
}


def measure(name: str, captures: int) -> dict[str, dict[str, float]]:
    """Bytes a capture and MB/s of changed pages, by way."""
    with tempfile.TemporaryDirectory(prefix="vcsimg-bench-") as folder:
        found = [pairs for pairs in changes(name, captures, Path(folder)) if pairs]
    size = sum(new.nbytes for pairs in found for _, new in pairs)
    results = {"changed pages": {"bytes": size / captures, "mb_s": 0.0}}
    for way, run in WAYS.items():
        began = time.process_time()
        total = sum(map(run, found))
        results[way] = {"bytes": total / captures, "mb_s": size / 1e6 / (time.process_time() - began)}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", default=["redis", *PYTHON])
    parser.add_argument("--json")
    parser.add_argument("--captures", type=int, default=8)
    options = parser.parse_args()
    results: dict[str, object] = {}
    for name in options.programs:
        found = results[name] = measure(name, options.captures)
        rows = [[way, f"{cell['bytes']:.0f}", f"{cell['mb_s']:.0f}"] for way, cell in found.items()]
        print_table(f"{name}: bytes a capture", ["way", "bytes", "MB/s"], rows)
    write_json(options.json, "floor", results)


if __name__ == "__main__":
    main()
