"""Symbols of small programs that are compiled for one test."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import Target
from tests.live_snapshot import snapshot_of, stop_in_read
from vcsimg.image.snapshot import Snapshot
from vcsimg.symbols import Symbols

MAIN = "\nextern int printf(const char *, ...), fflush(void *); extern long read(int, void *, unsigned long);\n"
WAIT = 'printf("ready\\n"); fflush(0); char byte; return (int)read(0, &byte, 1);'
"""Ends main: the program is ready, and waits."""


def build(output: Path, sources: Mapping[str, str], *flags: str | Path, compiler: str = "cc") -> Path:
    """A program or library of sources by file name, with debugging information."""
    for name, text in sources.items():
        (output.parent / name).write_text(text)
    files = [output.parent / name for name in sources]
    subprocess.run([compiler, "-g", "-O0", "-o", output, *files, *flags], check=True, capture_output=True)
    return output


def snapshot_of_program(program: Path) -> Snapshot:
    """An image of a program that waits; it is ended."""
    target = Target(program)
    try:
        target.line()
        stop_in_read(target)
        return snapshot_of(target.pid, frozen=True)
    finally:
        target.end()


def symbols_of(program: Path) -> Symbols:
    snapshot = snapshot_of_program(program)
    return Symbols(snapshot, snapshot.processes[0])
