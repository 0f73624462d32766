"""System calls made by a stopped thread of another process, on our behalf.

A borrowed thread runs a `syscall` instruction that the process has anyway; for many calls in a row, a loop in a page that is mapped for
the time of the borrowing. When it is given back it has its own registers and signal mask, and all else is as it was.

What the kernel would restart is restarted: ERESTART codes stand in the registers that are given back, and a thread that its tracer
lets go looks at them on its way to user mode, whatever stop it was in (kernel/ptrace.c, __ptrace_unlink sets TIF_SIGPENDING). Calls
with a timeout of their own that set the thread's restart block (nanosleep, poll, futex with a timeout) must not be borrowed: the
thread may be inside one, and would lose the time that it has left.

If vcsimg is killed
-------------------
A thread whose tracer has died runs on with the registers that it has. So at every moment of a borrowing these lead home: under the
thread's stack pointer, below the 128 bytes that the ABI lets a function use there, lies a signal frame with its registers, FPU state and
signal mask, as the kernel puts there for a signal handler; and whatever the thread runs, it comes upon the way of the handler's return,
rt_sigreturn:

    stack     [home] restore  ucontext  XSAVE area      own red zone | own stack
                     ^ rsp of a borrowed system call: `syscall; ret` returns to `restore`

    step                              a kill there leaves
    frame written                     bytes below the stack pointer changed, which nothing may rely on
    registers, mask borrowed          the same
    system call borrowed              the same, and what the system call did (a descriptor, say)
    scratch memory mapped             the same, and the mapping, until its first page has been written: from then on `home` unmaps it;
                                      memory for more than 64 KiB has no `home`, nor has any that two borrowed threads use
    registers, mask given back        bytes below the stack pointer changed
    frame taken away                  nothing

After a kill, a system call that the thread was in when it was stopped is started again: with its full timeout, where the kernel would have
known the rest; and a pending signal's handler runs before it, where it would have ended with EINTR. These two are all
that a program could notice.

A thread under a seccomp filter is borrowed only with CAP_SYS_ADMIN, which suspends the filter (PTRACE_O_SUSPEND_SECCOMP); a kill puts that in force again
at once, so the way home must be one that it allows: rt_sigreturn, and munmap.

There is no way home (and a kill during the borrowing, some 100 µs, ends the program) where the process has no `syscall; ret` or no
rt_sigreturn in its code (neither a C library nor Go's runtime), or where the memory below the stack pointer is not mapped. With a shadow
stack (CET) the return to `restore` is refused by the processor, with the same effect. Where rsp points into a larger object than a
stack of its own, as on the goroutine stacks of Go, a kill can leave bytes of that object changed; so threads that are in a system call, as
idle ones are, come first.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from vcsimg.errors import BorrowError, ProcessChanged, StopTimeout
from vcsimg.image.units import PAGE_SIZE, RemoteAddress
from vcsimg.kernel import cpuid, procfs, ptrace, rseq, sigframe
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import (
    ARGUMENTS,
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    NO_SYSTEM_CALL,
    ORIG_RAX,
    RAX,
    RIP,
    RSP,
    SYSCALL,
    WORD,
    RegisterBuffer,
    RegisterWords,
    is_error,
    signed,
)
from vcsimg.process import stopping, stub
from vcsimg.process.interrupts import deferred
from vcsimg.process.lending import Loan, choose
from vcsimg.process.thread import HeldThread

_ALL_SIGNALS = WORD - 1
_SECONDS = 10.0
_RED_ZONE = 128
_RESTARTED = tuple(WORD - code for code in (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK))

_PROT_READ_WRITE = 3
_PROT_EXEC = 4
_MAP_PRIVATE_ANONYMOUS = 0x22

_ARENA_SIZE = 64 << 10
_TABLE = PAGE_SIZE
_BATCH = 128
_RESULTS = _TABLE + _BATCH * stub.CALL.size
_FREE = _RESULTS + _BATCH * stub.RESULT.size

_QUIET_SIGNALS = (signal.SIGWINCH, signal.SIGURG, signal.SIGCHLD)
"""Signals without effect on a process that does not catch them."""

_components: tuple[tuple[int, int, int], ...] | None = None


def _xsave_components() -> tuple[tuple[int, int, int], ...] | None:
    global _components
    if _components is None:
        layout = cpuid.xsave_layout()
        _components = layout.components if layout is not None else None
    return _components


class Lender:
    """Lends the threads of one held process."""

    def __init__(self) -> None:
        self._choice: Loan | str | None = None
        self.arena: Arena | None = None
        self.lent: list[Borrowed] = []

    def reason(self, pid: int, threads: list[HeldThread], memory_fd: int) -> str | None:
        """Why no thread can be borrowed; None if one can."""
        self._choice = choose(pid, threads, memory_fd)
        return self._choice if isinstance(self._choice, str) else None

    def lend(self, pid: int, threads: list[HeldThread], memory_fd: int) -> Borrowed:
        """Raises BorrowError."""
        choice, self._choice = self._choice, None
        if not isinstance(choice, Loan) or choice.thread not in threads or choice.thread.is_lent:
            choice = choose(pid, threads, memory_fd)
        if isinstance(choice, str):
            raise BorrowError(pid, f"no system call can be borrowed: {choice}")
        return Borrowed(pid, choice, memory_fd, self)

    def take_back(self) -> None:
        """End what is still borrowed, the last first: an exception can come when the end of a `with` block has not begun yet."""
        for borrowed in reversed(self.lent.copy()):
            with suppress(ProcessChanged):
                borrowed.end()


class Borrowed:
    """A borrowed thread, as a context manager. Every method raises ProcessChanged if the process is killed meanwhile. `options`: of
    ptrace(2), while it is borrowed."""

    def __init__(self, pid: int, loan: Loan, memory_fd: int, lender: Lender) -> None:
        self.thread = loan.thread
        self._pid = pid
        self._status = loan.status
        self._code = loan.code
        self._memory = memory_fd
        self._lender = lender
        self._arena: Arena | None = None
        self._mappings: list[tuple[int, int]] = []
        self._saved: tuple[int, bytes] | None = None
        self._top = 0
        self._rest = self.thread.buffer
        self.options = loan.options

    def __enter__(self) -> Borrowed:
        try:
            with deferred():
                self._lender.lent.append(self)
                own, mask = self.thread.lend()
                self._leave_sequence(own)
                self._rest = self._prepare(own, mask)
                self._set_options(self.options)
                self.thread.store(self._rest)
                self._set_mask(_ALL_SIGNALS)
        except BaseException:
            # Also for a signal that was deferred until here.
            with suppress(ProcessChanged):
                self._give_back()
            raise
        return self

    def end(self) -> None:
        """Give the thread back, as the end of the block does. Nothing more happens when called again."""
        self._end(False)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with deferred():
                self._end(kind is None)
        except BaseException:
            # For a signal that came before it could be deferred.
            with deferred():
                self._end(False)
            raise

    def syscall(self, number: int, *args: int) -> int:
        """The result of a system call made by the thread. Raises BorrowError, with errno, when it fails."""
        result = self._call(number, args)
        if result < 0:
            raise BorrowError(self._pid, f"borrowed system call {number} failed: {os.strerror(-result)}", errno=-result)
        return result

    def batch(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
        """The raw results of many system calls, made one after the other: negative errno for one that failed. Some 0.3 µs each, and
        50 µs for all. A negative result above 2**63 (an address) is returned as a signed number."""
        return self.batch_of(stub.table(calls))

    def batch_of(self, table: bytes) -> list[int]:
        """batch() for calls that stand in a table as the loop reads it: 7 words of 8 bytes each, the number and six arguments."""
        arena = self._open_arena()
        quiet = self._quiet_signal()
        if arena is None or not arena.executable or not quiet:
            return [self._call(number, args) for number, *args in stub.CALL.iter_unpack(table)]
        results: list[int] = []
        size = _BATCH * stub.CALL.size
        for start in range(0, len(table), size):
            results += self._run_loop(arena, quiet, table[start : start + size])
        return results

    def scratch(self, size: int) -> RemoteAddress:
        """Zeroed memory in the process, readable and writable, gone when the borrowing ends. /proc/PID/maps lists it until then. Raises
        BorrowError (errno ENOMEM: a limit of the process)."""
        arena = self._open_arena()
        room = arena.take(size) if arena is not None else None
        if room is not None:
            return RemoteAddress(room)
        size = -(-size // PAGE_SIZE) * PAGE_SIZE
        with deferred():
            address = self.syscall(NR["mmap"], 0, size, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, WORD - 1, 0)
            self._mappings.append((address, size))
        return RemoteAddress(address)

    def read(self, address: int, length: int) -> bytes:
        """Memory of the process, whatever its protection; shorter where it ends. Raises OSError (EIO) where nothing is mapped."""
        return os.pread(self._memory, length, address)

    def write(self, address: int, data: bytes) -> None:
        """Write memory of the process, whatever its protection. Raises OSError (EIO) where nothing is mapped."""
        os.pwrite(self._memory, data, address)

    def registers_for(self, code: int) -> RegisterWords:
        """Registers with which the thread can be made to run code of ours at an address. A `ret` there leads home when we are dead, to
        which it may go with another system call first: `jmp` to the address `call`."""
        registers = RegisterBuffer(*self._rest)
        registers[RIP] = code
        if self._saved is not None:
            registers[RSP] = self._top
        return registers

    @property
    def overwritten(self) -> tuple[int, bytes]:
        """Where the way home lies for the time of the borrowing, and the bytes that belong there."""
        return self._saved or (0, b"")

    @property
    def call(self) -> int:
        """Where the process has `syscall; ret`, or `syscall` if it has no way home."""
        return self._code.call

    # The way home

    def _leave_sequence(self, own: RegisterWords) -> None:
        """A thread inside a restartable sequence goes on at the sequence's abort address, as after any interruption."""
        if own[ORIG_RAX] != NO_SYSTEM_CALL:
            return
        try:
            configuration = ptrace.rseq_configuration(self.thread.tid)
        except OSError as error:
            self.thread.gone(error)
        if configuration is not None:
            abort = rseq.abort_address(self._memory, configuration, own[RIP])
            if abort is not None:
                own[RIP] = abort

    def _prepare(self, own: RegisterWords, mask: int) -> RegisterWords:
        """Write the frame; returns the registers of a thread that is at rest, but for which nothing comes."""
        rest = RegisterBuffer(*own)
        rest[ORIG_RAX] = NO_SYSTEM_CALL
        components = _xsave_components()
        if not self._code.restore or components is None:
            rest[RIP] = self._code.call
            return rest
        area = self.thread.xsave()
        size = sigframe.area_size(area, components)
        frame = sigframe.xsave_frame(area, size)
        fpstate = (own[RSP] - _RED_ZONE - len(frame)) & ~63
        context = fpstate - sigframe.UCONTEXT_SIZE & ~15
        start = context - 16
        try:
            saved = os.pread(self._memory, fpstate + len(frame) - start, start)
            if len(saved) < fpstate + len(frame) - start:
                raise OSError(errno.EIO, "the stack ends")
        except (OSError, OverflowError):
            rest[RIP] = self._code.call
            return rest
        home = self._code.restore
        content = struct.pack("<QQ", home, home) + sigframe.ucontext(_restarted(own), mask, fpstate)
        self._saved = start, saved
        os.pwrite(self._memory, content.ljust(fpstate - start, b"\0") + frame, start)
        rest[RIP] = home
        rest[RSP] = context
        self._top = context - 8
        return rest

    def _end(self, complain: bool) -> None:
        """Give everything back. Nothing more happens when called again."""
        if not self.thread.is_lent:
            return
        try:
            self._catch()
            self._unmap()
        except ProcessChanged:
            if complain:
                raise
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self in self._lender.lent:
            self._lender.lent.remove(self)
        self.thread.take_back()
        self._set_options(stopping.OPTIONS)
        if self._saved is not None:
            start, saved = self._saved
            with suppress(OSError):
                os.pwrite(self._memory, saved, start)

    def _lead_home_through(self, home: int | None) -> None:
        """From now on, the thread passes `home` first when its tracer dies; None: no more."""
        if self._saved is None:
            return
        context = self._saved[0] + 16
        if home is not None:
            os.pwrite(self._memory, struct.pack("<Q", home), context - 16)
            self._rest[RIP], self._rest[RSP] = home, context - 8
            self._top = context - 16
        else:
            self._rest[RIP], self._rest[RSP] = self._code.restore, context
            self._top = context - 8
        self.thread.store(self._rest)

    # Memory

    def _open_arena(self) -> Arena | None:
        """Memory for the loop and for small requests; shared with the borrowing that this one is nested in. None if the process gets
        no memory."""
        if self._arena is not None:
            return self._arena
        outer = self._lender.arena
        if outer is not None:
            # Two threads lead home through it: the first to come would take it away under the other.
            outer.owner._lead_home_through(None)
            self._arena = outer
            return outer
        with deferred():
            for protection in (_PROT_READ_WRITE | _PROT_EXEC, _PROT_READ_WRITE):
                address = self._call(NR["mmap"], (0, _ARENA_SIZE, protection, _MAP_PRIVATE_ANONYMOUS, WORD - 1, 0))
                if address > 0:
                    break
            else:
                return None
            arena = Arena(self, address, _ARENA_SIZE, executable=bool(protection & _PROT_EXEC))
            self._arena = self._lender.arena = arena
            if arena.executable:
                os.pwrite(self._memory, stub.code(address, _ARENA_SIZE, self._code.call), address)
                if self._code.restore:
                    self._lead_home_through(address + stub.HOME)
        return arena

    def _unmap(self) -> None:
        for address, size in self._mappings:
            self._call(NR["munmap"], (address, size))
        if self._arena is not None and self._arena.owner is self:
            self._lead_home_through(None)
            self._lender.arena = None
            self._call(NR["munmap"], (self._arena.start, self._arena.size))

    # Running

    def _call(self, number: int, args: Sequence[int]) -> int:
        """The raw result of one system call: an address as it is, or a negative errno."""
        registers = self.registers_for(self._code.call)
        registers[RAX] = number
        for index, value in zip(ARGUMENTS, args, strict=False):
            registers[index] = value % WORD
        with deferred():
            self.thread.store(registers)
            self._resume(ptrace.PTRACE_SYSCALL)
            self._resume(ptrace.PTRACE_SYSCALL)
            result = int(self.thread.buffer[RAX])
        return signed(result) if is_error(result) else result

    def _run_loop(self, arena: Arena, quiet: int, table: bytes) -> list[int]:
        count = len(table) // stub.CALL.size
        os.pwrite(self._memory, table, arena.start + _TABLE)
        registers = self.registers_for(arena.start + stub.LOOP)
        registers[stub.TABLE] = arena.start + _TABLE
        registers[stub.RESULTS] = arena.start + _RESULTS
        registers[stub.COUNT] = count
        registers[stub.PROCESS] = int(procfs.status_line(self._status, "NStgid").split()[-1])
        registers[stub.THREAD] = int(procfs.status_line(self._status, "NSpid").split()[-1])
        registers[stub.SIGNAL] = quiet
        with deferred():
            self.thread.store(registers)
            self._set_mask(_ALL_SIGNALS & ~(1 << (quiet - 1)))
            self._resume(ptrace.PTRACE_CONT, quiet)
            self._set_mask(_ALL_SIGNALS)
        results = os.pread(self._memory, count * stub.RESULT.size, arena.start + _RESULTS)
        return [result for (result,) in stub.RESULT.iter_unpack(results)]

    def _quiet_signal(self) -> int:
        """A signal that the thread can be sent without effect on the process, even when nobody traces it; 0 if there is none."""
        busy = 0
        for name in ("SigCgt", "SigPnd", "ShdPnd"):
            busy |= int(procfs.status_line(self._status, name), 16)
        busy |= self.thread.signal_mask()
        return next((number for number in _QUIET_SIGNALS if not busy >> (number - 1) & 1), 0)

    def _resume(self, request: int, awaited: int = 0) -> None:
        """Let the thread run: after PTRACE_SYSCALL to the entry or exit of a system call, after PTRACE_CONT to the signal `awaited`.

        All signals but that one are blocked. What can come in between are stop signals, which cannot be blocked, and stops that
        are over when the thread goes on.
        """
        forwarded = 0
        while True:
            self.thread.go_on(request, forwarded)
            started = time.monotonic()
            if not self._await(started):
                raise ProcessChanged(self._pid, "it was killed while a system call was borrowed")
            signo, code = stopping.stop_code(self.thread)
            event = code >> 8 == ptrace.PTRACE_EVENT_STOP
            if request == ptrace.PTRACE_SYSCALL:
                if code == stopping.SYSCALL_STOP:
                    return
            elif not event and signo == awaited and self.thread.buffer[stub.COUNT] == 0:
                return
            forwarded = 0 if event or code == stopping.SYSCALL_STOP or signo == awaited else signo

    def _await(self, started: float) -> bool:
        try:
            return stopping.await_stop(self.thread, started + _SECONDS, started)
        except StopTimeout:
            # A system call that should not wait does: end it.
            ptrace.request(ptrace.PTRACE_INTERRUPT, self.thread.tid, 0, 0)
            return stopping.await_stop(self.thread, time.monotonic() + _SECONDS, started)

    def _catch(self) -> None:
        """After an exception in the middle of a call, the thread may still run."""
        if not self.thread.fetch():
            ptrace.request(ptrace.PTRACE_INTERRUPT, self.thread.tid, 0, 0)
            if not self._await(time.monotonic()):
                raise ProcessChanged(self._pid, "it was killed while a system call was borrowed")

    def _set_options(self, options: int) -> None:
        """The kernel forgets those that suspend seccomp filters when the tracer dies, too (kernel/ptrace.c, __ptrace_unlink)."""
        if self.options != stopping.OPTIONS:
            self.thread.set_options(options)

    def _set_mask(self, mask: int) -> None:
        try:
            ptrace.set_signal_mask(self.thread.tid, mask)
        except OSError as error:
            self.thread.gone(error)


class Arena:
    """Memory in the process: the stub's page, its table and results, and room for small requests."""

    def __init__(self, owner: Borrowed, start: int, size: int, *, executable: bool) -> None:
        self.owner = owner
        self.start = start
        self.size = size
        self.executable = executable
        self._used = _FREE

    def take(self, size: int) -> int | None:
        """The address of `size` fresh bytes; None if there is no room."""
        address = self.start + self._used
        size = -(-size // 64) * 64
        if self._used + size > self.size:
            return None
        self._used += size
        return address


def _restarted(own: RegisterWords) -> RegisterWords:
    """The registers with which a thread does by itself what the kernel would have it do: start its system call again."""
    if own[ORIG_RAX] == NO_SYSTEM_CALL or own[RAX] not in _RESTARTED:
        return own
    registers = RegisterBuffer(*own)
    registers[RIP] -= len(SYSCALL)
    registers[RAX] = own[ORIG_RAX]
    return registers
