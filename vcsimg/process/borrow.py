"""System calls made by a stopped thread of another process, on our behalf."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from types import TracebackType

from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.image.units import PAGE_SIZE, RemoteAddress
from vcsimg.kernel import procfs, ptrace
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ARGUMENTS, NO_SYSTEM_CALL, ORIG_RAX, RAX, RIP, WORD, RegisterBuffer, is_error, signed
from vcsimg.process import stopping
from vcsimg.process.code import find_syscall
from vcsimg.process.thread import HeldThread

_ALL_SIGNALS = WORD - 1
_SECONDS = 10.0
_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS = 0x22


def borrowing(pid: int, threads: list[HeldThread], memory: int) -> tuple[HeldThread | None, str | None]:
    """A thread that can be borrowed, or the reason why there is none."""
    for thread in threads:
        if procfs.status(pid, thread.tid).get("Seccomp", "0") == "0" and thread.stop_signal is None:
            break
    else:
        return None, "every thread has a seccomp filter"
    if find_syscall(memory, procfs.read_maps(pid)) is None:
        return None, "no executable mapping has a system call instruction"
    return thread, None


class Borrowed:
    """A borrowed thread; everything is restored when the `with` block ends."""

    def __init__(self, pid: int, threads: list[HeldThread], memory: int) -> None:
        self._pid = pid
        self._memory = memory
        thread, reason = borrowing(pid, threads, memory)
        if thread is None:
            raise BorrowError(pid, f"no system call can be borrowed: {reason}")
        self.thread = thread
        self._gadget = find_syscall(memory, procfs.read_maps(pid)) or 0
        self._original = RegisterBuffer(*thread.buffer)
        self._mask = 0
        self._mappings: list[tuple[int, int]] = []

    def __enter__(self) -> Borrowed:
        self._mask = self.thread.signal_mask()
        ptrace.set_signal_mask(self.thread.tid, _ALL_SIGNALS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for address, size in self._mappings:
                self.syscall(NR["munmap"], address, size)
            # From the exit of a system call to a stop in which the kernel looks at restart codes.
            ptrace.call(ptrace.PTRACE_INTERRUPT, self.thread.tid)
            self._resume(ptrace.PTRACE_CONT)
        finally:
            ptrace.set_signal_mask(self.thread.tid, self._mask)
            self.thread.store(self._original)

    def syscall(self, number: int, *args: int) -> int:
        """The result of a system call made by the thread. Raises BorrowError, with errno, when it fails."""
        result = self._raw(number, args)
        if is_error(result):
            code = -signed(result)
            raise BorrowError(self._pid, f"borrowed system call {number} failed: {os.strerror(code)}", errno=code)
        return result

    def batch(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
        """The raw results of many system calls: negative errno for one that failed."""
        return [signed(self._raw(number, args)) for number, args in calls]

    def scratch(self, size: int) -> RemoteAddress:
        """Zeroed memory in the process, readable and writable, gone when the borrowing ends."""
        size = -(-size // PAGE_SIZE) * PAGE_SIZE
        address = self.syscall(NR["mmap"], 0, size, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        self._mappings.append((address, size))
        return RemoteAddress(address)

    def read(self, address: int, length: int) -> bytes:
        """Memory of the process."""
        return os.pread(self._memory, length, address)

    def write(self, address: int, data: bytes) -> None:
        """Write memory of the process, whatever its protection."""
        os.pwrite(self._memory, data, address)

    def _raw(self, number: int, args: Sequence[int]) -> int:
        registers = RegisterBuffer(*self._original)
        registers[RIP] = self._gadget
        registers[RAX] = number
        registers[ORIG_RAX] = NO_SYSTEM_CALL
        for index, value in zip(ARGUMENTS, args, strict=False):
            registers[index] = value % WORD
        self.thread.store(registers)
        self._resume(ptrace.PTRACE_SYSCALL)
        self._resume(ptrace.PTRACE_SYSCALL)
        return int(self.thread.buffer[RAX])

    def _resume(self, request: int) -> None:
        """Let the thread run to the stop that the request leads to."""
        wanted = stopping.SYSCALL_STOP if request == ptrace.PTRACE_SYSCALL else None
        signal = 0
        while True:
            ptrace.call(request, self.thread.tid, 0, signal)
            started = time.monotonic()
            if not stopping.await_stop(self.thread, started + _SECONDS, started):
                raise ProcessChanged(self._pid, "it was killed while a system call was borrowed")
            signo, code = stopping.stop_code(self.thread)
            if code == wanted or (wanted is None and code >> 8 == ptrace.PTRACE_EVENT_STOP):
                return
            event = code >> 8 == ptrace.PTRACE_EVENT_STOP or code == stopping.SYSCALL_STOP
            signal = 0 if event else signo
