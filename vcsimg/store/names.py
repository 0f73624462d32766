"""Names of branches: NAME.PID.YYYYMMDD-HHMMSS, the time (UTC) being when the process started."""

from __future__ import annotations

import re
import time

_UNSAFE = re.compile(r"[^A-Za-z0-9_+-]+")


def branch_name(name: str, pid: int, started: float) -> str:
    """The branch of a process. `name` is its command name, `started` seconds since the epoch."""
    safe = _UNSAFE.sub("-", name).strip("-") or "process"
    return f"{safe}.{pid}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))}"


def may_be_of(branch: str, pid: int) -> bool:
    """Whether the name of a branch says this pid."""
    return f".{pid}." in branch
