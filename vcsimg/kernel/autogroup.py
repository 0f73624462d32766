"""Autogroups: all processes of a session share the processors as one, sched(7), "The autogroup feature"."""

from __future__ import annotations

import os
import time

_PATIENCE = 0.5
_PAUSE = 0.02


def parse_nice(content: bytes) -> tuple[bytes, int] | None:
    """Name and nice value of a group, from /proc/PID/autogroup; None if the process is in none."""
    words = content.split()
    return (words[0], int(words[2])) if len(words) == 3 else None


def of(pid: int) -> tuple[bytes, int] | None:
    """Name and nice value of a process's group; None if it is in none, or the kernel has none. Raises OSError."""
    try:
        with open(f"/proc/{pid}/autogroup", "rb") as file:
            return parse_nice(file.read())
    except FileNotFoundError:
        return None


def set_nice(pid: int, nice: int) -> None:
    """Give the group of a process a nice value. Raises OSError."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            _write(pid, nice)
            return
        except BlockingIOError:
            # Ordinary users may do that ten times a second, all together (kernel/sched/autogroup.c).
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE)


def _write(pid: int, nice: int) -> None:
    fd = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % nice)
    finally:
        os.close(fd)
