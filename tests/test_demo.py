"""`make demo` does what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Cli

ROOT = Path(__file__).parent.parent


def test_the_demo_shows_a_value_that_was_another_one_before(tmp_path: Path) -> None:
    environment = Cli(tmp_path).environment(VCSIMG_REPO=None, TMPDIR=os.environ.get("TMPDIR", "/tmp"))
    command = [sys.executable, str(ROOT / "tools" / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^  [0-9a-f]{7} ", done.stdout, re.M)) >= 10
    old, new = (int(value) for value in re.findall(r"^  \$1 = (\d+)$", done.stdout, re.M))
    assert old < new
    assert re.search(rf"was {old} then, and {new} in the newest capture", done.stdout)
