"""Making a frozen child copy: it runs the window's code while the process that it is an image of runs on.

The child is stopped in a page of code that exists only for its birth (process/frozen.py), and that is no part of the image. There we
put a system call of our own, with a way out behind it: if we are killed, whatever the child was doing for us, it ends. It never runs a
part of the program, and nothing of the image is written to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from types import TracebackType

from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.kernel import ptrace
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import (
    ARGUMENTS,
    NO_SYSTEM_CALL,
    ORIG_RAX,
    RAX,
    RIP,
    WORD,
    RegisterBuffer,
    RegisterWords,
    is_error,
    signed,
)
from vcsimg.memory.x86_64 import PAGE, SYSTEM_CALL_AND_EXIT
from vcsimg.process import HeldThread, stopping
from vcsimg.process.frozen import FrozenChild

_CLOSE_RANGE_UNSHARE = 2
_EVERY_DESCRIPTOR = 0xFFFFFFFF
_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS = 0x22
_SECONDS = 10.0


class FrozenLoan:
    """The one thread of a frozen child, with the interface of a borrowed thread. It is never given back: the child only ever ends."""

    def __init__(self, child: FrozenChild) -> None:
        """Raises BorrowError (before Linux 5.9: the child shares its parent's descriptors and cannot leave them), ProcessChanged."""
        self.thread = HeldThread(child.pid, child.pid)
        self._pid = child.pid
        self._memory = child.memory
        self._await()
        self._rest = RegisterBuffer(*self.thread.buffer)
        self.call = int(self._rest[RIP]) & -PAGE
        try:
            self.write(self.call, SYSTEM_CALL_AND_EXIT)
        except OSError as error:
            raise BorrowError(self._pid, f"the frozen child cannot be made to copy: {error.strerror}", errno=error.errno) from None

    def __enter__(self) -> FrozenLoan:
        # The descriptors are its parent's, which must not see one of ours among them, however briefly.
        self.syscall(NR["close_range"], 0, _EVERY_DESCRIPTOR, _CLOSE_RANGE_UNSHARE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def registers_for(self, code: int) -> RegisterWords:
        """Registers with which the thread can be made to run code of ours at an address."""
        registers = RegisterBuffer(*self._rest)
        registers[RIP] = code
        registers[ORIG_RAX] = NO_SYSTEM_CALL
        return registers

    def syscall(self, number: int, *args: int) -> int:
        """The result of a system call made by the child. Raises BorrowError, with errno, when it fails, and ProcessChanged."""
        result = self._call(number, args)
        if result < 0:
            raise BorrowError(self._pid, f"system call {number} of the frozen child failed: {os.strerror(-result)}", errno=-result)
        return result

    def batch(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
        """The raw results of several system calls: negative errno for one that failed."""
        return [self._call(number, args) for number, args in calls]

    def _call(self, number: int, args: Sequence[int]) -> int:
        registers = self.registers_for(self.call)
        registers[RAX] = number
        for index, value in zip(ARGUMENTS, args, strict=False):
            registers[index] = value % WORD
        self.thread.store(registers)
        for _ in ("entry", "exit"):
            self._to_system_call_stop()
        result = int(self.thread.buffer[RAX])
        return signed(result) if is_error(result) else result

    def scratch(self, size: int) -> int:
        """Zeroed memory in the child."""
        return self.syscall(NR["mmap"], 0, size, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, WORD - 1, 0)

    def write(self, address: int, data: bytes) -> None:
        """Write memory of the child. Raises OSError."""
        os.pwrite(self._memory, data, address)

    def _to_system_call_stop(self) -> None:
        while True:
            if ptrace.request(ptrace.PTRACE_SYSCALL, self._pid, 0, 0) == -1:
                raise ProcessChanged(self._pid, "the frozen child ended")
            self._await()
            if stopping.stop_code(self.thread)[1] == stopping.SYSCALL_STOP:
                return

    def _await(self) -> None:
        started = time.monotonic()
        if not stopping.await_stop(self.thread, started + _SECONDS, started):
            raise ProcessChanged(self._pid, "the frozen child ended")
