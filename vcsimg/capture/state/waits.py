"""When system calls with a timeout began: without that, a restored thread would wait for its whole timeout again.

The kernel does not tell, but it tells when a sleeping thread last was on a CPU, as long as no stop has woken it. So that is asked
before the stop, and remembered: a thread that was only stopped and went on sleeping is still in the same call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.kernel.sleeping import BlockedCall, clock_offset, parse_processor, parse_sched, parse_syscall
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, signed

_RESTART_SYSCALL = NR["restart_syscall"]
_TIMER_ABSTIME = 1
_FUTEX_COMMAND, _FUTEX_WAIT = 0x7F, 0
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_STOPPED, _ASLEEP = 1, 2
"""Voluntary context switches from stop to stop of a thread that goes on with its call: one for the stop, and one for falling asleep again,
which on a busy machine it may not have come to yet."""


def _milliseconds(index: int) -> Callable[[Sequence[int]], bool]:
    return lambda arguments: arguments[index] & 0x80000000 == 0


def _pointer(index: int) -> Callable[[Sequence[int]], bool]:
    return lambda arguments: arguments[index] != 0


_TIMED: Mapping[int, Callable[[Sequence[int]], bool]] = {
    NR["poll"]: _milliseconds(2),
    NR["nanosleep"]: lambda arguments: True,
    NR["clock_nanosleep"]: lambda arguments: not arguments[1] & _TIMER_ABSTIME,
    NR["futex"]: lambda arguments: arguments[1] & _FUTEX_COMMAND == _FUTEX_WAIT and arguments[3] != 0,
    NR["epoll_wait"]: _milliseconds(3),
    NR["epoll_pwait"]: _milliseconds(3),
    NR["epoll_pwait2"]: _pointer(3),
    NR["rt_sigtimedwait"]: _pointer(2),
    NR["semtimedop"]: _pointer(3),
    NR["io_getevents"]: _pointer(4),
    NR["io_pgetevents"]: _pointer(4),
}
"""Calls whose timeout counts from their begin, and whether it has one, from its arguments. (select, pselect and ppoll write back what
remains; absolute times need nothing.)"""


@dataclass(frozen=True, slots=True)
class Wait:
    """A call: the number that it was made with (None: unknown), and when it began, in nanoseconds of CLOCK_MONOTONIC (None: unknown, or it
    has no timeout that counts from there). `aged`: when it began matters."""

    number: int | None
    began: int | None
    aged: bool


@dataclass(frozen=True, slots=True)
class _Asleep:
    """A thread before the stop."""

    call: BlockedCall
    since: int
    switches: int


@dataclass(slots=True)
class _Known:
    """A wait at the capture before. `registers` without orig_rax, which becomes 219 when the kernel continues the call."""

    registers: dict[str, int]
    wait: Wait
    switches: int | None


class Waits:
    """Remembers the waits of the threads of one process from capture to capture."""

    def __init__(self) -> None:
        self._before: dict[int, _Asleep] = {}
        self._known: dict[int, _Known] = {}

    def prepare(self, proc: ProcDirectory) -> None:
        """While the process runs."""
        self._before = {}
        for name in proc.try_names("task"):
            call = parse_syscall(proc.try_read(f"task/{name}/syscall") or b"")
            if call is not None and call.number in _TIMED and _TIMED[call.number](call.arguments):
                self._look(proc, name, call)

    def _look(self, proc: ProcDirectory, name: str, call: BlockedCall) -> None:
        sched = parse_sched(proc.try_read(f"task/{name}/sched") or b"")
        stat = proc.try_read(f"task/{name}/stat")
        if sched is None or stat is None:
            return
        offset = clock_offset(parse_processor(stat))
        if offset is not None:
            self._before[int(name)] = _Asleep(call, min(sched[0] + offset, time.monotonic_ns()), sched[1])

    def find(self, tid: int, registers: dict[str, int], switches: int, now: int) -> Wait | None:
        """The call that a thread was stopped in and that starts again; None if in none. `switches`: its voluntary context switches; `now`: the
        instant of the stop, in nanoseconds of CLOCK_MONOTONIC."""
        number, error = registers["orig_rax"], -signed(registers["rax"])
        if error not in (ERESTART_RESTARTBLOCK, ERESTARTNOHAND):
            return None
        known = self._known.get(tid)
        if number == _RESTART_SYSCALL:
            # That it is continued proves that it is the same, if the thread is where it was.
            same = known is not None and known.registers == _place(registers)
            return known.wait if known is not None and same else Wait(None, None, True)
        timed = _TIMED.get(number)
        if timed is None:
            return None
        arguments = [registers[name] for name in _ARGUMENTS]
        if not timed(arguments):
            return Wait(number, None, False)
        if (
            known is not None
            and known.registers == _place(registers)
            and known.switches is not None
            and switches - known.switches in (_STOPPED, _ASLEEP)
        ):
            return known.wait
        before = self._before.get(tid)
        if before is None or before.call != BlockedCall(number, tuple(arguments)) or before.switches + 1 != switches:
            # It fell asleep after prepare(), a moment ago, or the kernel does not tell when: then it sleeps too long, not too short, when it is restored.
            return Wait(number, now, True)
        return Wait(number, before.since, True)

    def remember(self, tid: int, registers: dict[str, int], wait: Wait, switches: int | None) -> None:
        """A wait, when the thread is about to go on. `switches` None: unknown."""
        self._known[tid] = _Known(_place(registers), wait, switches)

    def forget(self) -> None:
        """All waits; those that go on are remembered anew."""
        self._known = {}


def _place(registers: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in registers.items() if name not in ("orig_rax", "rax")}
