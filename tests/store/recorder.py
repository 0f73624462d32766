"""A recorder for the kill tests: commits captures of a model one after another, and says each id when it is acknowledged.

Run as: recorder.py REPOSITORY SEED. Page 0 holds the number of the capture, so that whoever reads an id knows the content.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from store_model import BASE, Model

from vcsimg.store import Repository


def expected(step: int) -> bytes:
    """The first page at capture number `step`."""
    return random.Random(step).randbytes(4096)


def main() -> None:
    path, seed = sys.argv[1], int(sys.argv[2])
    rng = random.Random(seed)
    repo = Repository.open(path)
    model = Model()
    branch = f"model.{seed}"
    step = 0
    while True:
        model.write(BASE, expected(step))
        model.write(BASE + (1 + rng.randrange(700)) * 4096, rng.randbytes(rng.choice([8, 4096, 40_000])))
        print(model.capture(repo, branch=branch), step, flush=True)
        step += 1


if __name__ == "__main__":
    main()
