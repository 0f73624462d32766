"""Used processor time: the clocks of a restored process begin at nothing, and no system call can set them. What counts down to a moment of these
clocks is told what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vcsimg.image.sections.item import UNLIMITED, select
from vcsimg.image.sections.program import ResourceLimit
from vcsimg.image.sections.timers import ProcessorTime
from vcsimg.image.snapshot import Process


def note_on_processor_time(processes: Sequence[Process], notes: list[str]) -> None:
    """One for all of them, if it is worth mentioning."""
    spent = [(process.pid, time) for process in processes for time in select(process.section("timers"), ProcessorTime)]
    if spent:
        pid, most = max(spent, key=lambda one: (one[1].own, one[1].children))
        others = f", {len(spent) - 1} others also some" if len(spent) > 1 else ""
        children = f", and its children that have ended {most.children} s" if most.children else ""
        notes.append(
            "clocks of used processor time (getrusage(2), CLOCK_PROCESS_CPUTIME_ID) begin at nothing: "
            f"process {pid} had used {most.own} s{children}{others}"
        )


def left_of(process: Process, limit: ResourceLimit, notes: list[str]) -> ResourceLimit:
    """RLIMIT_CPU without what had been used of it, so that what was left is left."""
    used = sum(time.own for time in select(process.section("timers"), ProcessorTime))
    if limit.resource != "cpu" or used <= 0 or limit.soft == limit.hard == UNLIMITED:
        return limit
    soft, hard = (most if most == UNLIMITED else max(most - used, 1) for most in (limit.soft, limit.hard))
    notes.append(
        f"process {process.pid}: its limits of processor time (RLIMIT_CPU) are {used} s lower than they were: so much had been used of them"
    )
    return replace(limit, soft=soft, hard=hard)
