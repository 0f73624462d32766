"""What a writer that was killed left behind: removed by the next one."""

from __future__ import annotations

import os
import re
from pathlib import Path

_OWNED = re.compile(r"([1-9][0-9]*)-.*\.tmp\Z")
_KEEP = re.compile(r"vcsimg ([1-9][0-9]*)\n\Z")


def temporary_name() -> str:
    """What the name of an unfinished file begins with: whose it is."""
    return f"{os.getpid()}-"


def keep_text() -> str:
    """What stands in the .keep file of a pack that no reference leads to yet."""
    return f"vcsimg {os.getpid()}\n"


def remove(work: Path, packs: Path) -> None:
    """Remove unfinished files, .keep files and packs without index whose writers have ended. Raises OSError."""
    for path in work.iterdir():
        found = _OWNED.match(path.name)
        if found and not _alive(int(found[1])):
            path.unlink(missing_ok=True)
    for keep in packs.glob("pack-*.keep"):
        try:
            found = _KEEP.match(keep.read_text(errors="replace"))
        except FileNotFoundError:
            continue
        if found and not _alive(int(found[1])):
            if not keep.with_suffix(".idx").exists():
                keep.with_suffix(".pack").unlink(missing_ok=True)
            keep.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
