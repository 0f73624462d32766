"""A window: pages that we share with a process, and a thread of it that copies between them and its memory at our command.

`x86_64` describes the pages and how the two sides speak to each other. Here the window is lent and given back, commands are posted, and
what stops the thread on its way is dealt with: memory that is not there, signals, its death, ours.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NoReturn, Protocol

from vcsimg.errors import BorrowError, ProcessChanged, StopTimeout
from vcsimg.kernel import ptrace
from vcsimg.kernel.descriptors import MFD_NOEXEC_SEAL
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import RegisterWords
from vcsimg.memory import x86_64 as cpu
from vcsimg.memory.protocol import RangeArray, flat
from vcsimg.process import HeldThread, stopping
from vcsimg.process.interrupts import deferred

_SPINS = 1000
"""How often the target looks for the next command before it parks: 15 µs (Zen 5, where `pause` is short) to 50 µs (Skylake)."""

_LOOKS = 400
"""How often we look for the answer before we ask whether the target has stopped: about 15 µs."""

_MISSES = 3
"""How often in a row we may miss each other until the target no longer lingers. Either we come too late, when it is parked; or we wait in
vain for its answer, because there is no second CPU to linger on: then it only keeps us from going on."""

_PROMPT = 64 << 10
"""Bytes that are copied well within the time for which we look for the answer."""

_FIRST_PAUSE, _LONGEST_PAUSE = 64, 4096
"""Commands until lingering is tried again; each failure doubles the number."""

_YIELD_SECONDS = 0.002
"""How long we only yield the CPU between looks, before we sleep: a copy of 16 MiB takes about 1 ms."""

_COMMAND_SECONDS = 30.0
"""How long a command may take before it counts as stuck, on a page that a network or a userfaultfd does not bring."""

# The mailbox as an array of 32 and of 64 bits: a command should cost little.
_COMMAND, _DONE, _PARKED, _SPIN_LIMIT, _STORE = (at // 4 for at in (cpu.COMMAND, cpu.DONE, cpu.PARKED, cpu.SPINS, cpu.STORE))
_COUNT, _CURSOR, _UNMAP, _CALL = (at // 8 for at in (cpu.COUNT, cpu.CURSOR, cpu.UNMAP, cpu.CALL))

_STOP_SECONDS = 5.0
_ALL_SIGNALS = (1 << 64) - 1
_FAULTS = (signal.SIGSEGV, signal.SIGBUS)
_ACTION_SIZE = 32  # the kernel's struct sigaction: handler, flags, restorer, mask
_ACTIONS = 0x200  # where in the mailbox's page they are kept, one for each of _FAULTS


class CopyCut(Exception):
    """A copy stopped after `done` bytes."""

    def __init__(self, done: int, error: int) -> None:
        super().__init__(done, error)
        self.done = done
        self.errno = error


class Loan(Protocol):
    """A thread that makes system calls for us: process.Borrowed, or memory.frozen.FrozenLoan."""

    @property
    def thread(self) -> HeldThread: ...
    @property
    def call(self) -> int: ...
    def syscall(self, number: int, *args: int) -> int: ...
    def batch(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]: ...
    def scratch(self, size: int) -> int: ...
    def write(self, address: int, data: bytes) -> None: ...
    def registers_for(self, code: int) -> RegisterWords: ...
    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class Window:
    """`size` bytes shared with a process, from offset cpu.DATA of `map` on. Everything is given back by close().

    The thread that copies is on loan until then. The owner of the window is the OS thread that traces it.
    """

    def __init__(self, pid: int, loan: Loan, size: int, *, linger: bool = True) -> None:
        """`linger`: between commands the thread looks for the next one for some microseconds, if there is a second CPU for that.

        Raises BorrowError when the process refuses the mapping (limits, security module)."""
        self.pid = pid
        self._total = cpu.DATA + -(-size // cpu.PAGE) * cpu.PAGE
        self._cursor = 0
        self._stopped = True
        self._may_linger = linger and len(os.sched_getaffinity(0)) > 1
        self.lingers = self._may_linger
        """Whether the target waits for the next command after this one."""
        self._misses = 0
        self._pause = _FIRST_PAUSE
        self._until_retry = 0
        self._prompt = False
        self._met = False
        self._closed = False
        self._lent = ExitStack()
        with deferred():
            try:
                self._open(loan)
            except BaseException:
                self._lent.close()
                raise

    def _open(self, borrowed: Loan) -> None:
        self._borrowed = borrowed
        self._thread = borrowed.thread
        self._lent.enter_context(borrowed)
        file, remote_file = self._create()
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        try:
            os.ftruncate(file, self._total)
            self.map = mmap.mmap(file, self._total, flags)
        except OSError as error:
            borrowed.syscall(NR["close"], remote_file)
            raise BorrowError(self.pid, f"no window of {self._total} bytes: {error.strerror}", errno=error.errno) from None
        finally:
            os.close(file)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        self._base, _ = borrowed.batch(
            [(NR["mmap"], (0, self._total, protection, flags, remote_file, 0)), (NR["close"], (remote_file,))]
        )
        if self._base < 0:
            raise BorrowError(self.pid, f"mapping the window failed: {os.strerror(-self._base)}", errno=-self._base)
        self._lent.callback(borrowed.syscall, NR["munmap"], self._base, self._total)
        self._ints = memoryview(self.map)[cpu.MAILBOX : cpu.RANGES].cast("I")
        self._longs = memoryview(self.map)[cpu.MAILBOX : cpu.RANGES].cast("Q")
        self._ranges = memoryview(self.map)[cpu.RANGES : cpu.DATA].cast("Q")
        self.map[: len(cpu.CODE)] = cpu.CODE
        self._longs[_UNMAP] = self._base
        self._longs[_UNMAP + 1] = self._total
        self._longs[_CALL] = borrowed.call
        borrowed.batch([(NR["rt_sigaction"], (number, 0, action, 8)) for number, action in self._actions()])
        # Last, and not in a batch, so that the thread is at the exit of a system call afterwards.
        borrowed.syscall(NR["mprotect"], self._base, cpu.PAGE, mmap.PROT_READ | mmap.PROT_EXEC)
        self._thread.store(borrowed.registers_for(self._base + cpu.ENTRY))

    def _create(self) -> tuple[int, int]:
        """A new memfd: our descriptor, and the process's."""
        borrowed = self._borrowed
        name = borrowed.scratch(cpu.PAGE)
        borrowed.write(name, b"vcsimg-window\0")
        try:
            remote = borrowed.syscall(NR["memfd_create"], name, os.MFD_CLOEXEC | MFD_NOEXEC_SEAL)
        except BorrowError as error:
            if error.errno != errno.EINVAL:
                raise
            remote = borrowed.syscall(NR["memfd_create"], name, os.MFD_CLOEXEC)
        try:
            return os.open(f"/proc/{self.pid}/fd/{remote}", os.O_RDWR | os.O_CLOEXEC), remote
        except OSError as error:
            borrowed.syscall(NR["close"], remote)
            raise BorrowError(self.pid, f"its memfd cannot be opened: {error.strerror}", errno=error.errno) from None

    def _actions(self) -> list[tuple[int, int]]:
        """(signal, where in the process its own action for it is kept)."""
        start = self._base + cpu.MAILBOX + _ACTIONS
        return [(number, start + index * _ACTION_SIZE) for index, number in enumerate(_FAULTS)]

    def linger(self) -> None:
        """Try lingering again with the next command, if it was given up."""
        if not self.lingers:
            self._until_retry = 1

    @property
    def posted(self) -> int:
        """How many commands there were so far, in 32 bits."""
        return self._ints[_COMMAND]

    @property
    def awake(self) -> bool:
        """Whether the target still looks for commands, so that one costs no system call."""
        return not self._stopped and not self._ints[_PARKED]

    @property
    def busy(self) -> bool:
        """Whether a command is posted and not done: somebody did not wait for it, because of an exception or an abandoned stream."""
        return bool(self._ints[_COMMAND] != self._ints[_DONE])

    def settle(self) -> None:
        """Wait for a copy that nobody wants any more. Raises ProcessChanged."""
        try:
            self.wait()
        except CopyCut:
            pass

    def post_one(self, address: int, length: int, offset: int, *, store: bool) -> None:
        """Begin to copy [address, address + length) to the window, or from it (`store`), at `offset` of the map."""
        ints, ranges = self._ints, self._ranges
        if ints[_COMMAND] != ints[_DONE]:
            self.settle()
        ranges[0] = address
        ranges[1] = length
        self._prompt = length <= _PROMPT
        self._post(1, offset, store)

    def post(self, ranges: RangeArray, offset: int, *, store: bool) -> None:
        """Begin to copy up to cpu.RANGES_LIMIT ranges to consecutive bytes of the window, or from them."""
        if self.busy:
            self.settle()
        count = len(ranges)
        self._prompt = False
        self._ranges[: 2 * count] = flat(ranges).cast("Q")
        self._post(count, offset, store)

    def _post(self, count: int, offset: int, store: bool) -> None:
        ints = self._ints
        ints[_STORE] = store
        if not self.lingers:
            self._try_again()
        ints[_SPIN_LIMIT] = _SPINS if self.lingers else 0
        self._longs[_COUNT] = count
        self._longs[_CURSOR] = self._cursor = self._base + offset
        ints[_COMMAND] = (ints[_COMMAND] + 1) & 0xFFFFFFFF
        self._met = not self._stopped and not ints[_PARKED]
        if self._met:
            return
        if self.lingers:
            self._missed()
        if self._stopped:
            self._resume(0)
        elif self._thread.fetch():
            self._on_stop()

    def _missed(self) -> None:
        """The target lingered, and we missed each other."""
        self._misses += 1
        if self._misses > _MISSES:
            self.lingers = False
            self._until_retry = self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _try_again(self) -> None:
        self._until_retry -= 1
        if self._until_retry <= 0 and self._may_linger:
            self.lingers = True
            self._misses = 0

    def wait(self) -> None:
        """Until what was posted is done. Raises CopyCut when it could not be, ProcessChanged when the process was killed."""
        ints, command, done = self._ints, self._ints[_COMMAND], _DONE
        if self.lingers:
            for _ in range(_LOOKS):
                if ints[done] == command:
                    if self._misses and self._met:
                        self._misses = 0
                        self._pause = _FIRST_PAUSE
                    return
            if self._prompt and self._met:
                self._missed()
        started = time.monotonic()
        while ints[done] != command:
            if self._thread.fetch():
                self._on_stop()
                continue
            waited = time.monotonic() - started
            if waited < _YIELD_SECONDS:
                os.sched_yield()
                continue
            self._check_alive()
            if waited > _COMMAND_SECONDS:
                self._calm()
                if ints[done] != command:
                    self._cut(errno.ETIMEDOUT)
            time.sleep(0.0002)

    def close(self) -> None:
        """Give back the thread, the mapping and our side of it; buffers in the window that are still in use keep our side alive.

        The process may have been killed meanwhile. Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        with deferred():
            try:
                self._calm()
                self._lent.close()
            except ProcessChanged:
                pass  # nothing is left that could be given back
        for view in (self._ints, self._longs, self._ranges):
            view.release()
        try:
            self.map.close()
        except BufferError:
            pass

    def _resume(self, number: int) -> None:
        self._thread.go_on(ptrace.PTRACE_SYSEMU, number)
        self._stopped = False

    def _on_stop(self) -> None:
        """The thread has stopped: make it go on, or find that it cannot."""
        number, code = stopping.stop_code(self._thread)
        if code == stopping.SYSCALL_STOP and not self.busy:
            self._stopped = True  # it has parked; going on with nothing to do, it would think that we are dead
        elif code == stopping.SYSCALL_STOP or code >> 8 == ptrace.PTRACE_EVENT_STOP:
            self._resume(0)
        elif number in _FAULTS and code > 0 and cpu.in_code(self._thread.buffer, self._base):
            self._cut(errno.EFAULT)
        else:
            self._resume(number)

    def _cut(self, error: int) -> NoReturn:
        """End a command in the middle; the thread is stopped."""
        done = cpu.progress(self._thread.buffer, self._base, self._cursor)
        self._stopped = True
        self._ints[_DONE] = self._ints[_COMMAND]
        self._ints[_PARKED] = 0
        if error == errno.EFAULT:
            self._undo_fault()
        self._thread.store(self._borrowed.registers_for(self._base + cpu.ENTRY))
        raise CopyCut(done, error)

    def _undo_fault(self) -> None:
        """A fault whose signal is blocked makes the kernel unblock it and forget the process's own action for it (kernel/signal.c,
        force_sig_info_to_task())."""
        try:
            ptrace.set_signal_mask(self._thread.tid, _ALL_SIGNALS)
        except OSError as error:
            self._thread.gone(error)
        for number, action in self._actions():
            self._borrowed.syscall(NR["rt_sigaction"], number, action, 0, 8)

    def _calm(self) -> None:
        """Stop the thread where neither a system call nor a signal is half done, wherever it is now."""
        ptrace.request(ptrace.PTRACE_INTERRUPT, self._thread.tid, 0, 0)
        faulted = False
        deadline = time.monotonic() + _STOP_SECONDS
        while True:
            while not self._thread.fetch():
                self._check_alive()
                if time.monotonic() > deadline:
                    raise StopTimeout(self.pid, self._thread.tid, _STOP_SECONDS, "copying")
                os.sched_yield()
            number, code = stopping.stop_code(self._thread)
            if code >> 8 == ptrace.PTRACE_EVENT_STOP:
                break
            fault = number in _FAULTS and code > 0
            faulted |= fault
            passed = code == stopping.SYSCALL_STOP or fault
            # Asked again, since any stop takes a request for a stop with it (kernel/signal.c, ptrace_stop()).
            ptrace.request(ptrace.PTRACE_INTERRUPT, self._thread.tid, 0, 0)
            ptrace.request(ptrace.PTRACE_CONT, self._thread.tid, 0, 0 if passed else number)
        self._stopped = True
        if faulted:
            self._undo_fault()

    def _check_alive(self) -> None:
        if stopping.is_dead(self._thread):
            raise ProcessChanged(self.pid, f"thread {self._thread.tid} was killed while the window was open")
