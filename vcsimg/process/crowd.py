"""Where all processors are busy, be in nobody's way.

Two programs that wake each other, a server and its client, have a processor each. While a third uses one of these, both share the other; and when it is
done they stay there, though one is idle. For a thread is woken where it ran last, or where the one that wakes it runs (wake_affine() in
kernel/sched/fair.c); an idle processor is looked for only where the others have had little to do (nr_idle_scan, SIS_UTIL, Linux 6.0), on an average over
dozens of milliseconds; and balancing leaves a thread where it is that ran a moment ago (sched_migration_cost_ns). So they lose after a capture nearly
as much as while it was made: docs/performance.md, "Where redis's 5 % lie".

A thread that has to wait longer is moved. So the last that is done for a capture is done where a thread of the process waits: it, or the one that it
shares the processor with, is then moved to the one that is left. No setting of theirs is touched, and nothing is computed in vain.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from vcsimg.kernel import procfs
from vcsimg.kernel.sleeping import parse_processor

_MOST = 16
"""Threads that are looked at; if there are more, none is."""
_SHORT = 2e-3
"""Seconds that say nothing."""
_CROWDED = 0.2
"""What part of the time a thread waits for a processor that it shares, at least."""


class Crowd:
    """How long threads of processes wait for a processor, counted from when it is made. pids (n,). Nobody counts as waiting where the kernel does not count
    that (CONFIG_SCHED_INFO), and when the processes have ended. A context manager, after which a thread that joined may be again wherever it might."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._since = time.monotonic()
        self._waited = self._read()
        self._own: tuple[int, set[int]] | None = None

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            with suppress(OSError):  # these processors were taken from it meanwhile
                os.sched_setaffinity(*self._own)
            self._own = None

    def waiting(self) -> int | None:
        """The thread that has waited longest, if it has for much of the time."""
        elapsed = time.monotonic() - self._since
        if not self._waited or elapsed < _SHORT:
            return None
        now = self._read()
        waits = {tid: now[tid] - before for tid, before in self._waited.items() if tid in now}
        tid = max(waits, key=lambda tid: waits[tid], default=0)
        return tid if waits and waits[tid] >= _CROWDED * elapsed * 1e9 else None

    def join(self) -> None:
        """Go where the thread is that waits, if there is one, and if this thread may; once, until the end of the `with` block."""
        tid = self.waiting()
        if tid is not None:
            with suppress(OSError):  # it has ended
                processor = parse_processor(procfs.read(tid, "stat"))
                own = os.sched_getaffinity(0)
                if processor in own:
                    self._own = threading.get_native_id(), own  # first: Ctrl-C can come between
                    os.sched_setaffinity(0, {processor})

    def _read(self) -> Mapping[int, int]:
        """Nanoseconds that each thread of the processes has waited for a processor so far."""
        with suppress(OSError):
            tids = [tid for pid in self._pids for tid in procfs.threads(pid)]
            if len(tids) <= _MOST:
                return {tid: int(procfs.read(tid, "schedstat").split()[1]) for tid in tids}
        return {}
