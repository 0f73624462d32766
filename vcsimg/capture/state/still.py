"""Which threads have not run since the last capture.

A thread of which only the thread itself can change something, and that did not run, need not be asked again: being borrowed costs it
two resumes at least, some 200 µs, and most threads of a large process sleep most of the time.

Between two captures, a thread that goes on sleeping gives up the CPU exactly twice: when its system call was started again
and sleeps, and when the next stop comes. A thread that is woken in between gives it up once more to sleep again, and so is asked.
One case looks the same: its call ended the moment that it was started again, it did something, and it came back to the same
call with all registers the same, to sleep. So a thread is believed for a limited number of captures only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vcsimg.capture.state.own import Own

_VOLUNTARY = b"\nvoluntary_ctxt_switches:\t"
"""The involuntary ones are in the next line (fs/proc/array.c, task_context_switch_counts)."""
_ASLEEP = 2
_BELIEVED = 32


@dataclass(slots=True)
class Sight:
    """A thread when it was let go: its registers, its context switches (voluntary, involuntary), and what it had told."""

    registers: dict[str, int]
    switches: tuple[int, int]
    own: Own
    believed: int = 0


class Stillness:
    """Remembers the threads of one process from capture to capture."""

    def __init__(self) -> None:
        self._seen: dict[int, Sight] = {}

    def own(self, tid: int, registers: dict[str, int], switches: tuple[int, int]) -> Own | None:
        """What a thread told before, if it did not run since; else None. `switches`: see `switches()`."""
        sight = self._seen.get(tid)
        if sight is None or sight.believed >= _BELIEVED or sight.registers != registers:
            return None
        voluntary, involuntary = switches
        if (voluntary - sight.switches[0], involuntary - sight.switches[1]) != (_ASLEEP, 0):
            return None
        return sight.own if sight.own.answered else None

    def replace(self, seen: Mapping[int, Sight]) -> None:
        """What the threads look like now. A thread that was believed keeps count of how often."""
        for tid, sight in seen.items():
            before = self._seen.get(tid)
            if before is not None and before.own is sight.own:
                sight.believed = before.believed + 1
        self._seen = dict(seen)


def switches(status: bytes) -> tuple[int, int]:
    """Voluntary and involuntary context switches, from a status file."""
    start = status.rindex(_VOLUNTARY) + len(_VOLUNTARY)
    words = status[start:].split(None, 3)
    return int(words[0]), int(words[2])
