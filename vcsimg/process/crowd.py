"""Where all processors are busy, leave them as they were before a capture.

Two programs that wake each other, a server and its client, have a processor each. While a third uses one of these, both share the other; and when it is
done they stay there, though one is idle. For a thread is woken where it ran last, or where the one that wakes it runs (wake_affine() in
kernel/sched/fair.c); an idle processor is looked for only where the others have had little to do (nr_idle_scan, SIS_UTIL, Linux 6.0), on an average over
dozens of milliseconds; and balancing leaves a thread where it is that ran a moment ago (sched_migration_cost_ns). So they lose after a capture nearly
as much as while it was made: docs/performance.md, "Where redis's 5 % lie".

A thread that has to wait longer is moved. So where the threads are that share a processor, somebody else computes for a few milliseconds, and the
kernel moves one of them to the processor that is idle, by its next tick. Then he leaves at once: else the other one follows it. No setting of theirs is
touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from vcsimg.kernel import procfs
from vcsimg.kernel.sleeping import parse_processor

_MOST = 16
"""Threads that are looked at; if there are more, none is."""
_CROWDED = 0.2
"""What part of the time a thread waits for a processor that it shares, at least."""
_COMPUTE = 4.5e-3
_LOOK = 1.5e-3
"""Seconds: so long is computed in the way of a thread, which is more than a tick, and so long is looked at whether that has helped."""
_TIMES = 4


class Crowd:
    """How long threads of processes have waited for a processor, counted from when it is made. pids (n,)."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._begin()

    def disperse(self) -> None:
        """If one of them waits much, see to it that it does not: takes up to 25 ms, and only this thread's time. Nothing happens where the kernel does not
        count how long threads wait (CONFIG_SCHED_INFO), or when the processes have ended."""
        own = os.sched_getaffinity(0)
        with suppress(OSError):  # it has ended, or runs where we may not
            for _ in range(_TIMES):
                tid, share = self._longest()
                if share < _CROWDED:
                    break
                try:
                    processor = _processor(tid)
                    os.sched_setaffinity(0, {processor})
                    end = time.monotonic() + _COMPUTE
                    while time.monotonic() < end and _processor(tid) == processor:
                        pass
                finally:
                    os.sched_setaffinity(0, own)
                self._begin()
                time.sleep(_LOOK)

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._waited = _waited(self._pids)

    def _longest(self) -> tuple[int, float]:
        """The thread that waited longest, and what part of the time it did."""
        elapsed = time.monotonic() - self._since
        now = _waited(self._pids)
        shares = {tid: (now[tid] - before) / 1e9 / elapsed for tid, before in self._waited.items() if tid in now}
        return max(shares.items(), key=lambda pair: pair[1], default=(0, 0.0))


def _processor(tid: int) -> int:
    return parse_processor(procfs.read(tid, "stat"))


def _waited(pids: Sequence[int]) -> Mapping[int, int]:
    """Nanoseconds that each thread of the processes has waited for a processor so far."""
    with suppress(OSError):
        tids = [tid for pid in pids for tid in procfs.threads(pid)]
        if len(tids) <= _MOST:
            return {tid: int(procfs.read(tid, "schedstat").split()[1]) for tid in tids}
    return {}
