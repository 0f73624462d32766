"""Making a frozen child copy: it runs the window's code while the process that it is an image of runs on.

The child is stopped in a page of code that exists only for its birth (process/frozen.py), and that is no part of the image. There we
put a system call of our own, with a way out behind it: if we are killed, whatever the child was doing for us, it ends. It never runs a
part of the program, and nothing of the image is written to.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from types import TracebackType

from vcsimg.errors import BorrowError, ProcessChanged
from vcsimg.kernel import ptrace
from vcsimg.kernel.descriptors import CLOSE_RANGE_UNSHARE, EVERY_DESCRIPTOR
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import RegisterWords
from vcsimg.memory import x86_64 as cpu
from vcsimg.process import HeldThread, stopping
from vcsimg.process.frozen import FrozenChild

_SECONDS = 10.0


class FrozenLoan:
    """The one thread of a frozen child, with the interface of a borrowed thread. It is never given back: the child only ever ends."""

    def __init__(self, child: FrozenChild) -> None:
        """Raises BorrowError (before Linux 5.9: the child shares its parent's descriptors and cannot leave them), ProcessChanged."""
        self.thread = HeldThread(child.pid, child.pid)
        self._pid = child.pid
        self._memory = child.memory
        self._await()
        self.call = cpu.page_of(self.thread.buffer)
        self._rest = cpu.running(self.thread.buffer, self.call)
        try:
            self.write(self.call, cpu.SYSTEM_CALL_AND_EXIT)
        except OSError as error:
            raise BorrowError(self._pid, f"the frozen child cannot be made to copy: {error.strerror}", errno=error.errno) from None

    def __enter__(self) -> FrozenLoan:
        # The descriptors are its parent's, which must not see one of ours among them, however briefly.
        self.syscall(NR["close_range"], 0, EVERY_DESCRIPTOR, CLOSE_RANGE_UNSHARE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def registers_for(self, code: int) -> RegisterWords:
        """Registers with which the thread can be made to run code of ours at an address."""
        return cpu.running(self._rest, code)

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
        self.thread.store(cpu.calling(self._rest, self.call, number, args))
        for _ in ("entry", "exit"):
            self._to_system_call_stop()
        return cpu.returned(self.thread.buffer)

    def scratch(self, size: int) -> int:
        """Zeroed memory in the child."""
        return self.syscall(NR["mmap"], 0, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)

    def write(self, address: int, data: bytes) -> None:
        """Write memory of the child. Raises OSError."""
        os.pwrite(self._memory, data, address)

    def _to_system_call_stop(self) -> None:
        while True:
            self.thread.go_on(ptrace.PTRACE_SYSCALL)
            self._await()
            if stopping.stop_code(self.thread)[1] == stopping.SYSCALL_STOP:
                return

    def _await(self) -> None:
        started = time.monotonic()
        if not stopping.await_stop(self.thread, started + _SECONDS, started):
            raise ProcessChanged(self._pid, "the frozen child ended")
