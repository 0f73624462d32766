"""Names of branches: NAME.PID.YYYYMMDD-HHMMSS, the time (UTC) being when the process started; .2 and so on after it where that is taken."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import chain, count

_UNSAFE = re.compile(r"[^A-Za-z0-9_+-]+")


def branch_name(name: str, pid: int, started: float) -> str:
    """The branch of a process. `name` is its command name, `started` seconds since the epoch."""
    safe = _UNSAFE.sub("-", name).strip("-") or "process"
    return f"{safe}.{pid}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))}"


def free(name: str, taken: Callable[[str], bool]) -> str:
    """The first of `name`, `name`.2, `name`.3 and so on that is not taken: a pid can be used twice within a second."""
    return next(found for found in chain([name], (f"{name}.{number}" for number in count(2))) if not taken(found))


def may_be_of(branch: str, pid: int) -> bool:
    """Whether the name of a branch says this pid."""
    return f".{pid}." in branch
