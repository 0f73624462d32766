"""Threads: registers, and records of what else a thread has of its own."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

from vcsimg.capture.state.borrowing import Borrowings, Call
from vcsimg.capture.state.cut import Cut, cut_short
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.own import POLICY, STACK, Own
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.capture.state.seccomp import FILTERED, SeccompReader
from vcsimg.capture.state.signals import parse_siginfo, pending_items
from vcsimg.capture.state.status import credentials, nested
from vcsimg.capture.state.still import Sight, Stillness, switches
from vcsimg.capture.state.waits import Wait, Waits
from vcsimg.image.sections import thread as items
from vcsimg.image.sections.item import Item, records, select
from vcsimg.image.snapshot import Thread
from vcsimg.kernel import kcmp, ptrace, x86_64
from vcsimg.kernel.procfs import parse_status
from vcsimg.kernel.robust import robust_list
from vcsimg.kernel.scheduling import SchedulingAttributes, attributes, io_priority
from vcsimg.kernel.syscalls import NR
from vcsimg.process import HeldProcess, HeldThread

Value = TypeVar("Value")

_ESCAPE = re.compile(r"\\([n\\])")
_RIGHTS = ((b"\nUid:", b"\nFDSize:"), (b"\nGroups:", b"\nNStgid:"), (b"\nCapInh:", b"\nSpeculation_Store_Bypass:"))
_RESTARTS = (x86_64.ERESTARTSYS, x86_64.ERESTARTNOINTR, x86_64.ERESTARTNOHAND, x86_64.ERESTART_RESTARTBLOCK)
_TSC_ENABLE = 1
_NAMESPACES = ("net", "mnt", "uts", "ipc")
_SHARED_TABLES = ((kcmp.FILES, "file descriptors"), (kcmp.FS, "current directory, root and umask"))


@dataclass(slots=True)
class _Raw:
    """One thread, as read."""

    tid: int
    registers: dict[str, int]
    xsave: bytes
    mask: int
    pending: list[bytes]
    dequeued: bytes | None
    status: bytes
    scheduling: SchedulingAttributes | None
    affinity: set[int] | None
    io_priority: int | None
    robust: tuple[int, int] | None
    rseq: ptrace.RseqConfiguration | None
    dispatch: ptrace.SyscallUserDispatch | None
    apart: list[str]
    own: Own
    wait: Wait | None
    switches: tuple[int, int]


class ThreadsReader:
    """Reads the threads of one process."""

    def __init__(self) -> None:
        self._still = Stillness()
        self._waits = Waits()
        self._seccomp = SeccompReader()
        self._spare: list[tuple[Borrowings, Own]] = []
        self._asked = 0
        self._cuts: list[tuple[int, Cut]] = []
        self._placed: dict[int, list[str]] = {}

    def prepare(self, proc: ProcDirectory) -> None:
        """While it runs."""
        self._waits.prepare(proc)
        while len(self._spare) < self._asked:
            self._spare.append(_questions())

    def passing(self, held: HeldProcess, proc: ProcDirectory, now: int) -> Callable[[], None]:
        """It was stopped for another reason than a capture, after prepare(). Returns what is to be called when it is about to go on: then
        the waits of its threads are remembered. `now`: the instant of the stop, in nanoseconds of CLOCK_MONOTONIC."""
        found = []
        for thread in held.threads:
            registers = thread.registers()
            cut = cut_short(registers, held.memory)
            if cut is not None:
                self._cuts.append((thread.tid, cut))
            count = switches(proc.read_at_once(f"task/{thread.tid}/status"))[0]
            wait = self._waits.find(thread.tid, registers, count, now)
            if wait is not None:
                found.append((thread.tid, registers, wait))

        def remember() -> None:
            self._waits.forget()
            for tid, registers, wait in found:
                self._waits.remember(tid, registers, wait, switches(proc.read_at_once(f"task/{tid}/status"))[0])

        return remember

    def recall(self, threads: Iterable[Thread]) -> None:
        """What an earlier capture, made by another reader, knew of these threads."""
        for thread in threads:
            for call in select(thread.records, items.Call):
                number = call.original if call.number == NR["restart_syscall"] else call.number
                wait = Wait(number, call.began, call.began is not None or number is None)
                self._waits.remember(thread.tid, dict(thread.registers), wait, None)

    def read(self, moment: Moment) -> dict[int, Borrowings]:
        """While it is stopped. Returns what threads must be asked, by their ids; the first one the process's questions too."""
        self._raw = []
        self._proc = moment.proc
        self._namespaces: dict[str, str] = {}
        asks: dict[int, Borrowings] = {}
        for thread in moment.held.threads:
            tid = thread.tid
            status = moment.status if tid == moment.tid else moment.proc.read_at_once(f"task/{tid}/status")
            thread.status = status
            registers = thread.registers()
            count = switches(status)
            cut = cut_short(registers, moment.held.memory)
            if cut is not None:
                self._cuts.append((tid, cut))
            own = self._still.own(tid, registers, count) if tid != moment.tid else None
            if own is None:
                if tid == moment.tid:
                    asks[tid], own = moment.borrowings, moment.own
                else:
                    asks[tid], own = self._spare.pop() if self._spare else _questions()
            wait = self._waits.find(tid, registers, count[0], moment.monotonic)
            self._raw.append(self._read_thread(moment, thread, registers, status, own, wait, count))
        self._asked = len(asks) - 1
        return asks

    @property
    def computes(self) -> bool:
        """Whether one of them was stopped outside of system calls: it may be about to repeat an access to memory that the kernel has just made
        possible."""
        return any(raw.registers["orig_rax"] == x86_64.NO_SYSTEM_CALL for raw in self._raw)

    def remember(self, moment: Moment, asked: Collection[int]) -> None:
        """While it is still stopped, after the threads were asked: what each looks like that does not run until the next capture."""
        seen = {}
        self._waits.forget()
        for raw in self._raw:
            # Switches of the main thread, which was asked, count only for a wait whose age matters: they cost a file to read.
            needed = raw.tid != moment.tid or (raw.wait is not None and raw.wait.aged)
            asked_now = needed and raw.tid in asked
            count = switches(moment.proc.read_at_once(f"task/{raw.tid}/status")) if asked_now else raw.switches
            if raw.tid != moment.tid:
                seen[raw.tid] = Sight(raw.registers, count, raw.own)
            if raw.wait is not None:
                self._waits.remember(raw.tid, raw.registers, raw.wait, count[0])
        self._still.replace(seen)

    def _read_thread(
        self,
        moment: Moment,
        thread: HeldThread,
        registers: dict[str, int],
        status: bytes,
        own: Own,
        wait: Wait | None,
        switches: tuple[int, int],
    ) -> _Raw:
        tid = thread.tid
        waiting = b"\nSigPnd:\t0000000000000000\n" not in status
        if FILTERED in status:
            self._seccomp.read(tid, status)
        return _Raw(
            tid=tid,
            registers=registers,
            xsave=thread.xsave(),
            mask=thread.signal_mask(),
            pending=thread.pending() if waiting else [],
            dequeued=thread.stop_signal,
            status=status,
            scheduling=_tried(attributes, tid),
            affinity=_tried(os.sched_getaffinity, tid),
            io_priority=_tried(io_priority, tid),
            robust=_tried(robust_list, tid),
            rseq=_tried(ptrace.rseq_configuration, tid),
            dispatch=_dispatch(tid),
            apart=[] if tid == moment.tid else _apart(moment.tid, tid),
            own=own,
            wait=wait,
            switches=switches,
        )

    def finish(self, report: Report) -> tuple[Thread, ...]:
        """The threads, main thread first; writes section `seccomp` and what could not be read."""
        threads = []
        first = self._raw[0]
        filters = self._seccomp.items(first.tid, first.status, report)
        report.add("seccomp", *filters)
        rights = _rights(first.status), first.own.securebits.result
        for raw in self._raw:
            found = self._items(raw)
            if (_rights(raw.status), raw.own.securebits.result) != rights:
                own_credentials = credentials(parse_status(raw.status), _positive(raw.own.securebits))
                if own_credentials != credentials(parse_status(first.status), _positive(first.own.securebits)):
                    found.append(own_credentials)
            if FILTERED in raw.status and (own := self._seccomp.items(raw.tid, raw.status, report)) != filters:
                found += own
            threads.append(Thread(raw.tid, raw.registers, raw.xsave, records(found)))
            self._note_unread(raw, report)
        files = report.section("files") if self._cuts else ()
        for tid, cut in self._cuts:
            if cut.concerns(files):
                report.unsaved(f"thread {tid} {cut.what} fd {cut.fd}", cut.reason())
        self._cuts.clear()
        return tuple(threads)

    def _items(self, raw: _Raw) -> list[Item]:
        found: list[Item] = [items.Name(_unescaped(_line(raw.status, b"Name")))]
        if (ids := nested(_line(raw.status, b"NSpid"))) is not None:
            found.append(items.NamespaceTids(ids))
        found.append(items.SignalMask(raw.mask))
        found += pending_items(raw.pending, int(_line(raw.status, b"SigPnd"), 16))
        if raw.dequeued is not None:
            signal, code = parse_siginfo(raw.dequeued)
            found.append(items.Dequeued(signal, code, raw.dequeued))
        found += _call(raw)
        own = raw.own
        if own.sigaltstack.result == 0:
            address, flags, size = STACK.unpack(own.stack.data)
            found.append(items.Altstack(address, size, flags))
        if own.tid_address.result == 0:
            found.append(items.TidAddress(int.from_bytes(own.tid.data, "little")))
        if raw.robust is not None:
            found.append(items.RobustList(*raw.robust))
        if raw.rseq is not None:
            rseq = raw.rseq
            found.append(items.Rseq(rseq.rseq_abi_pointer, rseq.rseq_abi_size, rseq.signature, rseq.flags))
        if raw.dispatch is not None:
            found.append(items.UserDispatch(raw.dispatch.mode, raw.dispatch.selector, raw.dispatch.offset, raw.dispatch.len))
        if raw.scheduling is not None and raw.affinity is not None:
            found.append(_scheduling(raw.scheduling, raw.affinity, raw.io_priority))
        death = int.from_bytes(own.death.data, "little") if own.death_signal.result == 0 else None
        slack = own.timer_slack.result
        mode = POLICY.unpack(own.policy.data)[0] if own.memory_policy.result == 0 else 0
        if mode:
            found.append(items.MemoryPolicy(mode & 0xFFFFFFFF, int.from_bytes(own.nodes.data, "little")))
        tsc = int.from_bytes(own.tsc.data, "little") if own.time_stamps.result == 0 else None
        found.append(
            items.ThreadSettings(
                timer_slack=slack if slack is not None and slack >= 0 else None,
                parent_death_signal=death,
                tsc=tsc if tsc != _TSC_ENABLE else None,
                no_cpuid=True if own.cpuid.result == 0 else None,
            )
        )
        return found

    def _note_unread(self, raw: _Raw, report: Report) -> None:
        name = f"thread {raw.tid}"
        own = raw.own
        if own.sigaltstack.result is None:
            report.unsaved(
                f"{name} alternate signal stack, tid address, timer slack, parent death signal", "no system call could be borrowed"
            )
        elif own.tid_address.result != 0:
            report.unsaved(f"{name} tid address", "this kernel does not tell it (CONFIG_CHECKPOINT_RESTORE)")
        if raw.robust is None:
            report.unsaved(f"{name} robust list", "get_robust_list is not permitted")
        if raw.wait is not None and raw.wait.aged and raw.wait.began is None:
            report.unsaved(f"{name} timeout", "how long its system call has waited is unknown: it was interrupted before")
        for table in raw.apart:
            report.unsaved(f"{name} {table}", "the thread does not share them with the main thread")
        if raw.tid not in self._placed:
            self._placed[raw.tid] = self._elsewhere(raw.tid)
        for kind in self._placed[raw.tid]:
            report.unsaved(f"{name} {kind} namespace", "it is another one than that of the process")

    def _elsewhere(self, tid: int) -> list[str]:
        """The namespaces of a thread that are not those of the process. Looked up once: threads that change theirs later are too rare."""
        try:
            if not self._namespaces:
                self._namespaces = {kind: self._proc.link(f"ns/{kind}") for kind in _NAMESPACES}
            return [kind for kind, link in self._namespaces.items() if self._proc.link(f"task/{tid}/ns/{kind}") != link]
        except OSError:
            return []  # it has ended


def _questions() -> tuple[Borrowings, Own]:
    """Those for another thread than the one that speaks for the process."""
    ask = Borrowings()
    own = Own.ask(ask)
    ask.make_table()
    return ask, own


def _tried(read: Callable[[int], Value], tid: int) -> Value | None:
    try:
        return read(tid)
    except OSError:
        return None


def _positive(call: Call) -> int | None:
    return call.result if call.result is not None and call.result >= 0 else None


def _call(raw: _Raw) -> list[Item]:
    number, error = raw.registers["orig_rax"], -x86_64.signed(raw.registers["rax"])
    if x86_64.signed(number) < 0 or error not in _RESTARTS:
        return []
    wait = raw.wait or Wait(number, None, False)
    return [items.Call(number, wait.number if wait.number != number else None, error, wait.began)]


def _line(status: bytes, name: bytes) -> str:
    """The value of a line of a status file that every kernel writes."""
    start = status.index(name + b":\t") + len(name) + 2
    return os.fsdecode(status[start : status.index(b"\n", start)])


def _rights(status: bytes) -> tuple[bytes, ...]:
    """The parts of a status file of which credentials() are made. Those that differ may still say the same: a kernel
    may lack the lines that end the parts."""
    return tuple(status[status.find(first) : status.find(last)] for first, last in _RIGHTS)


def _unescaped(name: str) -> str:
    """A name as it was before the kernel escaped newlines and backslashes in a status file."""
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else "\\", name)


def _apart(pid: int, tid: int) -> list[str]:
    """What a thread does not share with the main thread, though threads made by pthread_create(3) do."""
    try:
        return [name for kind, name in _SHARED_TABLES if not kcmp.same(pid, tid, kind)]
    except OSError:
        return []  # a kernel without kcmp: unshare(2) in a thread is too rare to give up for


def _dispatch(tid: int) -> ptrace.SyscallUserDispatch | None:
    found = ptrace.SyscallUserDispatch()
    size = ctypes.sizeof(found)
    if ptrace.request(ptrace.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, ctypes.addressof(found)) == -1:
        return None  # a kernel before 6.4 does not tell a tracer
    return found if found.mode else None


def _scheduling(found: SchedulingAttributes, affinity: set[int], io_priority: int | None) -> items.Scheduling:
    return items.Scheduling(
        policy=found.policy,
        flags=found.flags,
        nice=found.nice,
        priority=found.priority,
        runtime=found.runtime or None,
        deadline=found.deadline or None,
        period=found.period or None,
        util_min=found.util_min or None,
        util_max=found.util_max or None,
        affinity=_ranges(sorted(affinity)),
        io_priority=io_priority,
    )


def _ranges(numbers: list[int]) -> str:
    """0-3,8 as in /proc: cpuset(7), list format."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
