"""One stopped thread."""

from __future__ import annotations

import ctypes
import errno
from typing import NoReturn

from vcsimg.errors import ProcessChanged
from vcsimg.kernel import ptrace
from vcsimg.kernel.x86_64 import REGISTERS, WORD, RegisterBuffer, RegisterWords


class HeldThread:
    """A thread of a held process. All methods raise ProcessChanged when it was killed meanwhile.

    `stop_signal`: siginfo_t of a signal that the kernel had taken off the queue for this thread when the stop came; it is delivered
    when the thread is released. Only signals that will end the process are kept so.
    `group_stopped`: it was stopped by SIGSTOP or the like, and stays so after release.
    `status`: what stands in its status file; to be set by whoever reads that while it is stopped, so that nobody else need.
    """

    __slots__ = ("_address", "_buffer", "_own", "_own_mask", "group_stopped", "lent", "pid", "status", "stop_signal", "tid")

    def __init__(self, pid: int, tid: int) -> None:
        self.pid = pid
        self.tid = tid
        self.stop_signal: bytes | None = None
        self.group_stopped = False
        self.status = b""
        self.lent = False
        self._own: RegisterWords | None = None
        self._own_mask = 0
        self._buffer = RegisterBuffer()
        self._address = ctypes.addressof(self._buffer)

    def __repr__(self) -> str:
        return f"<HeldThread {self.tid} of process {self.pid}>"

    def registers(self) -> dict[str, int]:
        """The general registers, unsigned, by the names of struct user_regs_struct.

        Of a thread stopped in a system call, `orig_rax` is its number (2**64 - 1 if in none) and `rax` may be one of the kernel's
        restart codes, -512 … -516; the kernel restarts the call, or makes it EINTR, when the thread goes on.
        """
        return dict(zip(REGISTERS, self._own or self._buffer, strict=True))

    def set_registers(self, registers: dict[str, int]) -> None:
        """Set some or all general registers; the thread keeps them when released. Raises KeyError for an unknown name."""
        fresh = RegisterBuffer(*(self._own or self._buffer))
        for name, value in registers.items():
            fresh[_INDEX[name]] = value % WORD
        if self._own is not None:
            self._own = fresh
        else:
            self.store(fresh)

    def xsave(self) -> bytes:
        """FPU, vector and other extended registers: the XSAVE area in the standard format."""
        try:
            return ptrace.xstate(self.tid)
        except OSError as error:
            self.gone(error)

    def set_xsave(self, area: bytes) -> None:
        """Set them; `area` must have the size that xsave() returns. Raises ValueError if the processor would not take it."""
        try:
            ptrace.set_xstate(self.tid, area)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EFAULT):
                raise ValueError(f"not an XSAVE area for this processor: {len(area)} bytes") from error
            self.gone(error)

    def signal_mask(self) -> int:
        """The blocked signals: bit n-1 for signal n. Inside sigsuspend and the like, the mask that the thread goes back to."""
        if self._own is not None:
            return self._own_mask
        try:
            return ptrace.signal_mask(self.tid)
        except OSError as error:
            self.gone(error)

    def pending(self) -> list[bytes]:
        """siginfo_t (128 bytes) of each signal queued for this thread, in order."""
        try:
            return ptrace.pending(self.tid, shared=False)
        except OSError as error:
            self.gone(error)

    def shared_pending(self) -> list[bytes]:
        """siginfo_t (128 bytes) of each signal queued for the process, in order."""
        try:
            return ptrace.pending(self.tid, shared=True)
        except OSError as error:
            self.gone(error)

    # What follows is for the other modules of this package.

    def lend(self) -> tuple[RegisterWords, int]:
        """The thread is about to be borrowed: keep its own registers and mask, which registers() and signal_mask() go on to show, and
        return them. `lent` says that this happened during the hold."""
        self._own_mask = self.signal_mask()
        self._own = RegisterBuffer(*self._buffer)
        self.lent = True
        return self._own, self._own_mask

    def take_back(self) -> None:
        """Give a borrowed thread its own mask and registers back, in this order: the registers say where the mask comes from as long as
        they are borrowed ones (see borrow)."""
        own, self._own = self._own, None
        if own is None:
            return
        try:
            ptrace.set_signal_mask(self.tid, self._own_mask)
        except OSError as error:
            self.gone(error)
        self.store(own)

    @property
    def buffer(self) -> RegisterWords:
        """The general registers by the indexes in kernel.x86_64. To change them, pass a changed copy to store()."""
        return self._buffer

    @property
    def is_lent(self) -> bool:
        """Whether it is borrowed now."""
        return self._own is not None

    def fetch(self) -> bool:
        """Read the registers; false if the thread is not stopped."""
        return bool(ptrace.request(ptrace.PTRACE_GETREGS, self.tid, 0, self._address) == 0)

    def try_store(self) -> bool:
        """Write the registers in `buffer`; false if the thread has ended."""
        return bool(ptrace.request(ptrace.PTRACE_SETREGS, self.tid, 0, self._address) == 0)

    def store(self, registers: RegisterWords) -> None:
        """Set all general registers at once."""
        if ptrace.request(ptrace.PTRACE_SETREGS, self.tid, 0, ctypes.addressof(registers)) == -1:
            self.gone(OSError(ctypes.get_errno(), "PTRACE_SETREGS"))
        if registers is not self._buffer:
            ctypes.memmove(self._buffer, registers, ctypes.sizeof(registers))

    def set_options(self, options: int) -> None:
        """Say which of its events we are told."""
        if ptrace.request(ptrace.PTRACE_SETOPTIONS, self.tid, 0, options) == -1:
            self.gone(OSError(ctypes.get_errno(), "PTRACE_SETOPTIONS"))

    def go_on(self, request: int, signal: int = 0) -> None:
        """Let the stopped thread run by PTRACE_CONT, PTRACE_SYSCALL or PTRACE_SYSEMU, with a signal or none."""
        if ptrace.request(request, self.tid, 0, signal) == -1:
            self.gone(OSError(ctypes.get_errno(), "it cannot go on"))

    def gone(self, error: OSError) -> NoReturn:
        """Raise what a failed request means."""
        if error.errno == errno.ESRCH:
            raise ProcessChanged(self.pid, f"thread {self.tid} ended while it was held") from error
        raise error


_INDEX = {name: index for index, name in enumerate(REGISTERS)}
