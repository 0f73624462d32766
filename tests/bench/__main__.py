"""All benchmarks, one after the other: what `make bench` runs. Results go to bench-NAME.json in the current folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

NAMES = sorted(
    path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "__main__", "harness", "plot")
)


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        module = importlib.import_module(f"tests.bench.{name}")
        sys.argv = [name, "--json", f"bench-{name}.json"]
        module.main()


if __name__ == "__main__":
    main()
