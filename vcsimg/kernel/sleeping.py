"""When a sleeping thread went to sleep: /proc/TID/syscall (proc_pid_syscall(5)) and /proc/TID/sched (kernel/sched/debug.c).

se.exec_start is the scheduler's clock when the thread last was on a CPU. Each CPU has its own such clock; it stands still while
the CPU serves interrupts, or while a hypervisor lets another guest run (update_rq_clock_task), so it falls behind
CLOCK_MONOTONIC by a thousandth or less.

It is 0 for a thread that was moved to another CPU and has not run there. That can last as long as it sleeps: since Linux 6.12 one that had more than its
share of the CPU stays in the queue for a moment when it falls asleep, and may be moved with it (kernel/sched/fair.c, `sched_delayed`).
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

_EXEC_START = re.compile(rb"^se\.exec_start\s*:\s*(\d+)\.(\d{6})", re.MULTILINE)
_SWITCHES = re.compile(rb"^nr_voluntary_switches\s*:\s*(\d+)", re.MULTILINE)
_SAMPLES = 5
_VALID = 1_000_000_000
_NAP = 1e-6
_offsets: dict[int, tuple[int, int]] = {}
"""For each CPU: offset, and when it was measured."""


class BlockedCall(NamedTuple):
    """A system call in which a thread sleeps: its number and six arguments."""

    number: int
    arguments: tuple[int, ...]


def parse_syscall(content: bytes) -> BlockedCall | None:
    """A line of /proc/TID/syscall; None when the thread runs, or sleeps outside a system call."""
    words = content.split()
    if len(words) < 9:
        return None
    return BlockedCall(int(words[0]), tuple(int(word, 16) for word in words[1:7]))


def parse_sched(content: bytes) -> tuple[int, int] | None:
    """When the thread last was on a CPU, in nanoseconds of the scheduler's clock, and its voluntary context switches; None where the kernel does not tell."""
    start, switches = _EXEC_START.search(content), _SWITCHES.search(content)
    if start is None or switches is None or not (last := int(start[1] + start[2])):
        return None
    return last, int(switches[1])


def parse_processor(stat: bytes) -> int:
    """The CPU on which a thread last was, from its stat file."""
    return int(stat.rpartition(b")")[2].split()[36])


def clock_offset(cpu: int) -> int | None:
    """How far CLOCK_MONOTONIC is ahead of the scheduler's clock of a CPU now, in nanoseconds, to some 50 µs; None where the kernel does not
    tell.

    Measured on ourselves, on that CPU: after a nap, exec_start is the moment at which we woke.
    """
    known = _offsets.get(cpu)
    if known is not None and time.monotonic_ns() - known[1] < _VALID:
        return known[0]
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
        found = sorted(_sample() for _ in range(_SAMPLES))
    except (OSError, ValueError):
        return None
    finally:
        os.sched_setaffinity(0, before)
    # A tick between waking and reading makes a sample too small, a late wake-up too large.
    _offsets[cpu] = found[_SAMPLES // 2], time.monotonic_ns()
    return found[_SAMPLES // 2]


def _sample() -> int:
    """Raises ValueError where the file does not tell."""
    time.sleep(_NAP)
    now = time.monotonic_ns()
    with open("/proc/thread-self/sched", "rb") as file:
        parsed = parse_sched(file.read())
    if parsed is None:
        raise ValueError("no se.exec_start")
    return now - parsed[0]
