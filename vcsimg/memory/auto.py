"""The quickest way for each transfer, and the strongest one for what the quickest cannot do.

    process runs              up to 8 KiB by /proc/PID/mem; larger reads by process_vm_readv, writes of any size by /proc/PID/mem
    held                      up to 8 KiB by /proc/PID/mem; otherwise process_vm_readv and process_vm_writev
    held, with a window       anything through the window while it is awake, and from 512 KiB on in any case; otherwise as above
    several ranges            the same, by their sum; up to two small ones one by one

Memory that its protection hides is reached by /proc/PID/mem, and by ptrace words where an administrator has taken that right from
/proc/PID/mem (`proc_mem.force_override`, Linux 6.12). Where the borders lie was measured: docs/memory.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from vcsimg.errors import AccessError, BorrowError, NotPermitted, UnsupportedKernel
from vcsimg.kernel import features
from vcsimg.memory.proc import ProcMemory
from vcsimg.memory.protocol import Buffer, RangeArray, Reader, WritableBuffer, flat, locate, total_length
from vcsimg.memory.shared import SharedMemory
from vcsimg.memory.vm import VmMemory
from vcsimg.memory.words import PtraceMemory
from vcsimg.process import HeldProcess
from vcsimg.process.frozen import FrozenChild

SMALL = 8 << 10
"""Up to here /proc/PID/mem is the quickest of the system calls."""

LARGE = 512 << 10
"""From here on the window is quicker even when its thread must be woken."""

_FIRST_PAUSE, _LONGEST_PAUSE = 16, 4096
"""Transfers until the window is tried again, when it was found asleep; doubled each time that it did not pay."""

_PAID = 64
"""So many commands since it was tried last show that it paid."""

FEW = 2
"""So many ranges are read one by one, if they are small."""


class AutoMemory(Reader):
    """Memory of a process as a debugger sees it: protection does not hinder, and every transfer goes the quickest way.

    For a number, the process may run; after an exec, all calls raise ProcessChanged. For a held process, close it before the process
    is released; it belongs to the OS thread that holds it. For a frozen child, it belongs to the OS thread that made the child.

    `refused`: why there is no window though one was asked for; None if there is one.
    """

    def __init__(self, target: int | HeldProcess | FrozenChild, *, window: int | None = None) -> None:
        """`window`: open one, with so many bytes for buffer(); not for a process that runs.

        Raises NoSuchProcess, NotPermitted; ValueError for a window into a process that runs.
        """
        self.pid: int
        self.refused: str | None = None
        self._window: SharedMemory | None = None
        self._vm: VmMemory | None = None
        self._words: PtraceMemory | None = None
        if isinstance(target, int):
            if window is not None:
                raise ValueError("no window into a process that runs")
            self.pid = target
            self._mem = ProcMemory(target)
        else:
            self.pid = target.pid
            self._mem = ProcMemory(self.pid, target.memory)
            self._words = PtraceMemory(target.pid if isinstance(target, FrozenChild) else target.threads[0].tid)
        self._file = self._mem.fileno()
        self._held = self._words is not None
        self._pause = self._until_retry = _FIRST_PAUSE
        self._posted = 0
        if features.available("process_vm"):
            # By a thread: a main thread that has ended has no memory any more.
            thread = target.threads[0].tid if isinstance(target, HeldProcess) else self.pid
            self._vm = VmMemory(thread, stopped=self._held, descriptor=self._file)
        if window is not None and not isinstance(target, int):
            try:
                self._window = SharedMemory(target, window)
            except BorrowError as error:
                self.refused = str(error)

    def buffer(self, length: int) -> WritableBuffer:
        """A buffer into which reading is quickest: of the window, if there is one and its `window` bytes are enough.

        All buffers of the window are the same bytes.
        """
        if self._window is not None and length <= self._window.size:
            return self._window.buffer(length)
        return bytearray(length)

    def alive(self) -> bool:
        """Whether the address space still exists: the process has neither ended nor called exec."""
        return self._mem.alive()

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        window = self._window
        if window is not None and (window.window.awake or self._wakes(window, memoryview(buffer).nbytes)):  # type: ignore[arg-type]
            try:
                return window.read_into(address, buffer)
            except AccessError as error:
                return self._strongly(_read, address, flat(buffer), _reached(error))
        view = memoryview(buffer)  # type: ignore[arg-type]  # as in flat(), which would cost too much here
        total = view.nbytes
        if total > SMALL:
            return self._read_large(address, flat(view))
        try:
            done = os.preadv(self._file, (view,), address)
        except (OSError, OverflowError):
            done = 0
        return done if done == total and done else self._strongly(_read, address, flat(view), 0)

    def _read_large(self, address: int, view: memoryview) -> int:
        done = 0
        if self._vm is not None:
            try:
                return self._vm.read_into(address, view)
            except AccessError as error:
                done = error.done
            except (NotPermitted, UnsupportedKernel):
                self._vm = None
        return self._strongly(_read, address, view, done)

    def write(self, address: int, data: Buffer) -> int:
        window = self._window
        if window is not None and (window.window.awake or self._wakes(window, memoryview(data).nbytes)):  # type: ignore[arg-type]
            try:
                return window.write(address, data)
            except AccessError as error:
                return self._strongly(_write, address, flat(data), _reached(error))
        view = flat(data)
        total = view.nbytes
        # A running process may call exec at any time, and only /proc/PID/mem cannot reach the program after it.
        if total > SMALL and self._held:
            return self._write_large(address, view)
        try:
            done = os.pwrite(self._file, view, address)
        except (OSError, OverflowError):
            done = 0
        return done if done == total and done else self._strongly(_write, address, view, done)

    def _write_large(self, address: int, view: memoryview) -> int:
        done = 0
        if self._vm is not None:
            try:
                return self._vm.write(address, view)
            except AccessError as error:
                done = error.done
            except (NotPermitted, UnsupportedKernel):
                self._vm = None
        return self._strongly(_write, address, view, done)

    def read_ranges(self, ranges: RangeArray, view: memoryview) -> int:
        rest = ranges
        done = 0
        while len(rest):
            try:
                return done + self._quick_for(rest).read_ranges(rest, view[done:])
            except AccessError as error:
                at = error.earlier + _reached(error)
            except (NotPermitted, UnsupportedKernel):
                self._vm = None
                continue
            index, part = locate(rest, at)
            address, length = (int(number) for number in rest[index])
            done += at - part
            try:
                self._strongly(_read, address, view[done : done + length], part)
            except AccessError as error:
                raise AccessError(self.pid, address, length, error.done, error.errno, earlier=done) from None
            done += length
            rest = rest[index + 1 :]
        return done

    def close(self) -> None:
        for backend in (self._window, self._vm, self._mem):
            if backend is not None:
                backend.close()
        self._window = self._vm = self._words = None
        self._file = -1

    def _wakes(self, window: SharedMemory, total: int) -> bool:
        """Whether to use the window though its thread must be woken for it, which costs as much as copying some hundred KiB. Once
        awake, it is the quickest way for any size; but whether it stays awake depends on how soon the next call comes, and on
        whether a CPU is free: from time to time we find out."""
        if total >= LARGE:
            return True
        self._until_retry -= 1
        if self._until_retry > 0:
            return False
        posted = window.window.posted
        paid = (posted - self._posted) & 0xFFFFFFFF >= _PAID
        self._posted = posted
        self._until_retry = self._pause = _FIRST_PAUSE if paid else min(2 * self._pause, _LONGEST_PAUSE)
        window.window.linger()
        return True

    def _quick_for(self, ranges: RangeArray) -> Reader:
        """The quickest way for some ranges."""
        total = total_length(ranges)
        if total <= SMALL and len(ranges) <= FEW:
            return self._mem
        window = self._window
        if window is not None and (window.window.awake or self._wakes(window, total)):
            return window
        return self._vm or self._mem

    def _strongly(self, move: Callable[[Reader, int, memoryview], int], address: int, view: memoryview, done: int) -> int:
        """Go on after `done` bytes in the ways that do not heed protection."""
        total = view.nbytes
        number = errno.EFAULT
        for way in (self._mem, self._words):
            try:
                if way is not None:
                    return done + move(way, address + done, view[done:])
            except AccessError as error:
                done += error.done
                number = error.errno
            except NotPermitted:
                pass  # another of our OS threads traces it, or a frozen child has only just been born
        raise AccessError(self.pid, address, total, done, number)


def _reached(error: AccessError) -> int:
    """How far a quick way came before a strong one goes on. Raises the error again when that would wait for ever."""
    if error.errno == errno.ETIMEDOUT:
        raise error
    return error.done


def _read(way: Reader, address: int, view: memoryview) -> int:
    return way.read_into(address, view)


def _write(way: Reader, address: int, view: memoryview) -> int:
    return way.write(address, view)
