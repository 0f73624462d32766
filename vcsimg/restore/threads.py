"""Threads: what each has of its own."""

from __future__ import annotations

import os
import struct

from vcsimg.errors import RestoreError
from vcsimg.image.sections import thread as items
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Thread
from vcsimg.kernel import cpuid, ptrace, rseq
from vcsimg.kernel.prctl_set import ARCH_SET_CPUID, SET_NAME, SET_PDEATHSIG, SET_TIMERSLACK, SET_TSC
from vcsimg.kernel.scheduling import attributes
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import (
    ERESTART_RESTARTBLOCK,
    NO_SYSTEM_CALL,
    SYSCALL,
    WORD,
    RegisterWords,
)
from vcsimg.restore import waits
from vcsimg.restore.remote import Call, Remote, failed, register_words
from vcsimg.restore.skeleton import Skeleton

_SCHED_ATTR = struct.Struct("<IIQiIQQQII")
_SCHED_RESET_ON_FORK = 1
_SCHED_OTHER = 0
_SCHED_KEEP_ALL = 0x18
_SCHED_UTIL_CLAMP = 0x60
_IOPRIO_WHO_PROCESS = 1
_SS_DISABLE = 2
_SS_AUTODISARM = 0x80000000
_XSTATE_FEATURES = 512
_EINTR = 4
_NODES = 1024


def make_threads(skeleton: Skeleton) -> None:
    """All threads but the main one, with their ids. Raises RestoreError."""
    for thread in skeleton.process.threads:
        if thread.tid != skeleton.pid:
            skeleton.add_thread(thread.tid)


def restore_thread(skeleton: Skeleton, thread: Thread, notes: list[str]) -> None:
    """Everything but credentials, registers and mask. Raises RestoreError."""
    remote = skeleton.threads[thread.tid]
    what = f"thread {thread.tid}"
    calls: list[Call] = []
    optional: list[Call] = []
    for name in select(thread.records, items.Name):
        calls.append((NR["prctl"], (SET_NAME, remote.put(os.fsencode(name.comm)[:15] + b"\0"))))
    for robust in select(thread.records, items.RobustList):
        if robust.head:
            calls.append((NR["set_robust_list"], (robust.head, robust.length)))
    for tid in select(thread.records, items.TidAddress):
        calls.append((NR["set_tid_address"], (tid.address,)))
    disabled = remote.put(struct.pack("<QiiQ", 0, _SS_DISABLE, 0, 0))
    calls.append((NR["sigaltstack"], (disabled, 0)))
    for stack in select(thread.records, items.Altstack):
        if not stack.flags & _SS_DISABLE:
            content = struct.pack("<QiiQ", stack.address, _signed32(stack.flags & _SS_AUTODISARM), 0, stack.size)
            calls.append((NR["sigaltstack"], (remote.put(content), 0)))
    for area in select(thread.records, items.Rseq):
        calls.append((NR["rseq"], (area.address, area.size, area.flags, area.signature)))
    for settings in select(thread.records, items.ThreadSettings):
        if settings.timer_slack:
            optional.append((NR["prctl"], (SET_TIMERSLACK, settings.timer_slack)))
        if settings.parent_death_signal:
            calls.append((NR["prctl"], (SET_PDEATHSIG, settings.parent_death_signal)))
        if settings.tsc:
            optional.append((NR["prctl"], (SET_TSC, settings.tsc)))
        if settings.no_cpuid:
            optional.append((NR["arch_prctl"], (ARCH_SET_CPUID, 0)))
    for policy in select(thread.records, items.MemoryPolicy):
        nodes = policy.nodes & (1 << _NODES) - 1
        optional.append((NR["set_mempolicy"], (policy.mode, remote.put(nodes.to_bytes(_NODES // 8, "little")), _NODES)))
    for scheduling in select(thread.records, items.Scheduling):
        optional += _scheduling(remote, scheduling)
    remote.all(calls, what)
    for (number, _), result in zip(optional, remote.batch(optional), strict=True):
        if failed(result):
            notes.append(f"{what} has other {_WORDS.get(number, 'settings')} than it had: {os.strerror(-result)}")
    remote.clear()


_WORDS = {
    NR["sched_setattr"]: "scheduling", NR["sched_setaffinity"]: "processors", NR["ioprio_set"]: "I/O priority",
    NR["prctl"]: "timer slack or access to RDTSC", NR["set_mempolicy"]: "memory policy", NR["arch_prctl"]: "access to CPUID",
}  # fmt: skip


def _signed32(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _scheduling(remote: Remote, wanted: items.Scheduling) -> list[Call]:
    calls: list[Call] = []
    cpus = numbers(wanted.affinity) & os.sched_getaffinity(0)
    everywhere = set(range(os.cpu_count() or 1))
    if cpus and cpus != everywhere:
        mask = sum(1 << cpu for cpu in cpus)
        size = -(-mask.bit_length() // 64) * 8
        calls.append((NR["sched_setaffinity"], (0, size, remote.put(mask.to_bytes(size, "little")))))
    own = attributes(remote.tid)
    slice_differs = wanted.policy == _SCHED_OTHER and wanted.runtime not in (None, own.runtime)
    if wanted.policy != _SCHED_OTHER or wanted.nice or wanted.flags & _SCHED_RESET_ON_FORK or slice_differs:
        content = _SCHED_ATTR.pack(
            48, wanted.policy, wanted.flags & _SCHED_RESET_ON_FORK, wanted.nice, wanted.priority,
            wanted.runtime or 0, wanted.deadline or 0, wanted.period or 0, 0, 0,
        )  # fmt: skip
        calls.append((NR["sched_setattr"], (0, remote.put(content[:48].ljust(56, b"\0")), 0)))
    if (wanted.util_min, wanted.util_max) not in ((None, None), (own.util_min or None, own.util_max or None)):
        flags = wanted.flags & _SCHED_RESET_ON_FORK | _SCHED_KEEP_ALL | _SCHED_UTIL_CLAMP
        content = _SCHED_ATTR.pack(56, 0, flags, 0, 0, 0, 0, 0, wanted.util_min or 0, wanted.util_max or 0)
        calls.append((NR["sched_setattr"], (0, remote.put(content), 0)))
    if wanted.io_priority:
        calls.append((NR["ioprio_set"], (_IOPRIO_WHO_PROCESS, 0, wanted.io_priority)))
    return calls


def numbers(text: str) -> set[int]:
    """0-3,8 → {0, 1, 2, 3, 8}: cpuset(7), list format."""
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            if int(last or first) - int(first) < 1 << 16:
                found.update(range(int(first), int(last or first) + 1))
    except ValueError:
        raise RestoreError("scheduling", f"not a list of processors: {text[:40]!r}") from None
    return found


def restore_registers(skeleton: Skeleton, thread: Thread, captured: int) -> None:
    """The last of all but letting go: XSAVE area, signal mask, general registers. The thread must be at rest; `captured`: see waits.arm().
    Raises RestoreError."""
    remote = skeleton.threads[thread.tid]
    if thread.xsave:
        try:
            ptrace.set_xstate(remote.tid, _area(remote, thread))
        except OSError as error:
            raise RestoreError(f"thread {thread.tid} extended registers", str(error.strerror)) from None
    for dispatch in select(thread.records, items.UserDispatch):
        wanted = ptrace.SyscallUserDispatch(dispatch.mode, dispatch.selector, dispatch.offset, dispatch.length)
        ptrace.set_syscall_dispatch(remote.tid, wanted)
    ptrace.set_signal_mask(remote.tid, next((signals.mask for signals in select(thread.records, items.SignalMask)), 0))
    try:
        remote.store(_registers(skeleton, thread, captured))
    except OSError as error:
        raise RestoreError(f"thread {thread.tid} registers", str(error.strerror)) from None


def _area(remote: Remote, thread: Thread) -> bytes:
    """The image's XSAVE area as this processor takes it: the components lie at the same offsets in every one."""
    size = len(ptrace.xstate(remote.tid))
    layout = cpuid.xsave_layout()
    features = int.from_bytes(thread.xsave[_XSTATE_FEATURES : _XSTATE_FEATURES + 8], "little")
    if layout is not None and features & ~layout.features:
        raise RestoreError(
            f"thread {thread.tid} extended registers", f"this processor lacks XSAVE features {features & ~layout.features:#x}"
        )
    return thread.xsave[:size].ljust(size, b"\0")


_LOAD_NUMBER = 0xB8
"""mov eax, imm32"""
_LOOK_BACK = 40
_CONTINUED = frozenset(NR[name] for name in ("poll", "nanosleep", "clock_nanosleep", "futex"))
"""Calls that the kernel continues by restart_syscall(2)."""


def _loaded_number(skeleton: Skeleton, instruction: int) -> int | None:
    """The system call that code before a `syscall` instruction asks for, as C libraries write it; None where it cannot be seen."""
    code = os.pread(skeleton.memory, _LOOK_BACK, instruction - _LOOK_BACK)
    for at in range(len(code) - 5, -1, -1):
        if code[at] == _LOAD_NUMBER and int.from_bytes(code[at + 1 : at + 5], "little") in _CONTINUED:
            return int.from_bytes(code[at + 1 : at + 5], "little")
    return None


def _registers(skeleton: Skeleton, thread: Thread, captured: int) -> RegisterWords:
    values = dict(thread.registers)
    error = WORD - values["rax"]
    if waits.registers(skeleton, thread, values, captured):
        return register_words(values)
    if values["orig_rax"] != NO_SYSTEM_CALL and error == ERESTART_RESTARTBLOCK:
        _begin_again(skeleton, thread, values)
    if values["orig_rax"] == NO_SYSTEM_CALL:
        for area in select(thread.records, items.Rseq):
            configuration = ptrace.RseqConfiguration(area.address, area.size, area.signature, area.flags, 0)
            abort = rseq.abort_address(skeleton.memory, configuration, values["rip"])
            if abort is not None:
                values["rip"] = abort
    return register_words(values)


def _begin_again(skeleton: Skeleton, thread: Thread, values: dict[str, int]) -> None:
    """What the kernel knew of the rest of a wait (struct restart_block) is lost: the call starts again from its arguments."""
    number = values["orig_rax"]
    if number == NR["restart_syscall"]:
        calls = select(thread.records, items.Call)
        original = calls[0].original if calls else None
        if original is None:
            original = _loaded_number(skeleton, values["rip"] - len(SYSCALL))
        if original is None:
            values["rax"] = WORD - _EINTR
            values["orig_rax"] = NO_SYSTEM_CALL
            return
        number = original
    values["rip"] -= len(SYSCALL)
    values["rax"] = number
    values["orig_rax"] = NO_SYSTEM_CALL
