"""A skeleton thread: stopped, traced by us, and made to do one system call after the other until it is what the image says.

Nothing of it is its own yet, so nothing is saved and given back (that is process.borrow's work). It runs only the loop of its arena.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Mapping, Sequence

from vcsimg.errors import RestoreError
from vcsimg.kernel import ptrace, ptrace_events
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import (
    ARGUMENTS,
    NO_SYSTEM_CALL,
    ORIG_RAX,
    R12,
    RAX,
    RBP,
    RBX,
    REGISTERS,
    RIP,
    WORD,
    RegisterBuffer,
    RegisterWords,
    signed,
)
from vcsimg.process import stub
from vcsimg.restore import arena

_WALL = 0x40000000
OPTIONS = (
    ptrace.PTRACE_O_TRACESYSGOOD
    | ptrace.PTRACE_O_EXITKILL
    | ptrace_events.PTRACE_O_TRACEFORK
    | ptrace_events.PTRACE_O_TRACEVFORK
    | ptrace_events.PTRACE_O_TRACECLONE
)
ALL_BUT_TRAP = WORD - 1 - (1 << (signal.SIGTRAP - 1))
"""Blocked signals of a skeleton: a blocked SIGTRAP would be forced by the kernel, which then resets its handler."""

Call = tuple[int, Sequence[int]]


class Remote:
    """`tid` as we see it; `inner` as it sees itself."""

    def __init__(self, tid: int, inner: int, memory: int, base: int) -> None:
        self.tid = tid
        self.inner = inner
        self.memory = memory
        self.base = base
        self.born: list[int] = []
        self._used = arena.ROOM
        self._registers = RegisterBuffer()

    def fetch(self) -> RegisterWords:
        """Its registers now."""
        ptrace.call(ptrace.PTRACE_GETREGS, self.tid, 0, ctypes.addressof(self._registers))
        return RegisterBuffer(*self._registers)

    def store(self, registers: RegisterWords) -> None:
        ptrace.call(ptrace.PTRACE_SETREGS, self.tid, 0, ctypes.addressof(registers))

    def block_signals(self) -> None:
        ptrace.set_signal_mask(self.tid, ALL_BUT_TRAP)

    # System calls

    def call(self, number: int, *args: int) -> int:
        """The result of a system call. Raises OSError."""
        (result,) = self.batch([(number, args)])
        if -4096 < result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def batch(self, calls: Sequence[Call]) -> list[int]:
        """Raw results of many system calls, in order: a negative errno for one that failed."""
        results: list[int] = []
        for start in range(0, len(calls), arena.BATCH):
            results += self._run(calls[start : start + arena.BATCH])
        return results

    def all(self, calls: Sequence[Call], what: str) -> list[int]:
        """batch() in which every call must succeed. Raises RestoreError that names `what`."""
        results = self.batch(calls)
        for (number, _), result in zip(calls, results, strict=True):
            if -4096 < result < 0:
                raise RestoreError(what, f"{_NAMES.get(number, number)}: {os.strerror(-result)}")
        return results

    def prepared(self, calls: Sequence[Call]) -> RegisterWords:
        """The registers with which it makes system calls, when it goes on."""
        os.pwrite(self.memory, stub.table(calls), self.base + arena.TABLE)
        registers = self.fetch()
        registers[RIP] = self.base
        registers[RBX] = self.base + arena.TABLE
        registers[RBP] = self.base + arena.RESULTS
        registers[R12] = len(calls)
        registers[ORIG_RAX] = NO_SYSTEM_CALL
        return registers

    def _run(self, calls: Sequence[Call]) -> list[int]:
        self.store(self.prepared(calls))
        self.resume(ptrace.PTRACE_CONT)
        data = os.pread(self.memory, len(calls) * stub.RESULT.size, self.base + arena.RESULTS)
        return [result for (result,) in stub.RESULT.iter_unpack(data)]

    def resume(self, request: int) -> None:
        """Let it run to the next stop that counts: breakpoint, system call (PTRACE_SYSCALL) or interrupt."""
        ptrace.call(request, self.tid, 0, 0)
        while True:
            status = self.wait()
            event = status >> 16
            if event in ptrace_events.NEW_TASK_EVENTS:
                self.born.append(ptrace_events.new_task(self.tid))
            elif event or os.WSTOPSIG(status) in (signal.SIGTRAP, signal.SIGTRAP | 0x80):
                return
            elif os.WSTOPSIG(status) in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL):
                raise RestoreError(f"thread {self.inner}", f"its skeleton crashed: {signal.strsignal(os.WSTOPSIG(status))}")
            ptrace.call(request, self.tid, 0, 0)

    def wait(self) -> int:
        """The status of its next stop. Raises RestoreError when it ended instead."""
        _, status = os.waitpid(self.tid, _WALL)
        if not os.WIFSTOPPED(status):
            raise RestoreError(f"thread {self.inner}", f"its skeleton ended: status {status:#x}")
        return status

    def at(self, instruction: int, number: int, *args: int) -> int:
        """A system call by a `syscall` instruction outside of the arena, which it may unmap. Returns its raw result."""
        registers = self.fetch()
        registers[RIP] = instruction
        registers[RAX] = number
        registers[ORIG_RAX] = NO_SYSTEM_CALL
        for register, value in zip(ARGUMENTS, args, strict=False):
            registers[register] = value % WORD
        self.store(registers)
        self.resume(ptrace.PTRACE_SYSCALL)
        self.resume(ptrace.PTRACE_SYSCALL)
        return signed(self.fetch()[RAX])

    def come_to_rest(self) -> None:
        """From the exit of a system call to a stop where the kernel, when the thread goes on, restarts what its registers tell."""
        ptrace.call(ptrace.PTRACE_INTERRUPT, self.tid, 0, 0)
        self.resume(ptrace.PTRACE_CONT)

    # Memory for arguments

    def put(self, data: bytes, align: int = 16) -> int:
        """The address of a copy of `data` in the arena, valid until clear()."""
        address = self.room(len(data), align)
        os.pwrite(self.memory, data, address)
        return address

    def room(self, size: int, align: int = 16) -> int:
        """The address of `size` bytes in the arena."""
        start = -(-self._used // align) * align
        if start + size > arena.SIZE:
            raise RestoreError(f"thread {self.inner}", "no room for the arguments of a system call")
        self._used = start + size
        return self.base + start

    def clear(self) -> None:
        """Forget what was put."""
        self._used = arena.ROOM

    def read(self, address: int, size: int) -> bytes:
        return os.pread(self.memory, size, address)

    def write_word(self, address: int, value: int) -> None:
        os.pwrite(self.memory, struct.pack("<Q", value % WORD), address)

    def string(self, text: str) -> int:
        return self.put(os.fsencode(text) + b"\0")


_NAMES = {number: name for name, number in NR.items()}


def register_words(values: Mapping[str, int]) -> RegisterWords:
    """struct user_regs_struct."""
    return RegisterBuffer(*(values[name] % WORD for name in REGISTERS))


def failed(result: int) -> bool:
    """Whether a raw result is an error."""
    return -4096 < result < 0


def words(values: Iterable[int]) -> bytes:
    """64-bit words."""
    values = [value % WORD for value in values]
    return struct.pack(f"<{len(values)}Q", *values)
