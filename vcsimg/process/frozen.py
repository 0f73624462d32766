"""A frozen child: a copy-on-write image of a held process that nothing runs in.

A borrowed thread makes a child (clone(2)) that shares every private page with its parent and stays stopped, traced by us, until it is
killed. What makes it invisible to its parent:

* its exit signal is 0: no SIGCHLD, and wait() does not see it, only __WALL does;
* CLONE_FILES: it holds no descriptors of its own, so a pipe or socket that the parent closes is closed;
* SysV semaphore undos, robust lists and the address to clear at exit are not inherited (kernel/fork.c, copy_process).

It cannot run the program by mistake: it is born in code that does nothing but exit, so if vcsimg is killed, it ends. It is then
left as a zombie of its parent, without memory, whose name says what it was; the next fork_frozen() has it collected. close() leaves none.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

from vcsimg.errors import BorrowError, ProcessChanged, ProcessError
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import procfs, ptrace
from vcsimg.kernel.ptrace_events import PTRACE_EVENT_CLONE, PTRACE_O_TRACECLONE, new_task
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import ARGUMENTS, ERESTARTNOINTR, RAX, WORD, is_error, signed
from vcsimg.process import stopping
from vcsimg.process.borrow import Borrowed
from vcsimg.process.held import HeldProcess, hold_main_thread
from vcsimg.process.thread import HeldThread

_CLONE_FILES = 0x400
_WALL = 0x40000000
_PROT_READ_EXEC = 5
_MAP_PRIVATE_ANONYMOUS = 0x22
_SECONDS = 30.0
_BIRTH_SECONDS = 1.0
_SYSCALL_SIZE = 2
_ATTEMPTS = 100

#       syscall                 clone
#       test   eax, eax
#       jz     child
#       ret                     the parent is stopped before this; it leads home should we die now
# child: mov   edi, 15          PR_SET_NAME
#       lea    rsi, [name]
#       mov    eax, 157         prctl
#       syscall
#       xor    edi, edi
#       mov    eax, 231         exit_group
#       syscall
_NAME = "vcsimg-frozen"
_BIRTH = bytes.fromhex("0f05 85c0 7401 c3 bf0f000000 488d3510000000 b89d000000 0f05 31ff b8e7000000 0f05") + _NAME.encode() + b"\0"


_living: set[int] = set()
"""Frozen children that are not closed."""


class FrozenChild:
    """Descriptors of the child's memory and page map; both can be read while the parent runs."""

    def __init__(self, parent: int, pid: int, inner_pid: int) -> None:
        self.parent = parent
        self.pid = pid
        self._inner_pid = inner_pid
        _living.add(pid)
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self.pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """End the child, and have its parent collect it, for which the parent's main thread is held once more, briefly."""
        for fd in (self.memory, self.pagemap):
            os.close(fd)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _await_death(self.pid)
        _living.discard(self.pid)
        # If the parent has ended or cannot be held now, init collects the child when the parent is gone.
        with suppress(ProcessError), hold_main_thread(self.parent, 1.0) as held, held.borrow() as borrowed:
            borrowed.syscall(NR["wait4"], self._inner_pid, 0, _WALL, 0)


def fork_frozen(held: HeldProcess) -> FrozenChild:
    """A frozen child of a held process. Private memory is as of now; MAP_SHARED memory stays shared, MADV_DONTFORK regions are missing,
    MADV_WIPEONFORK regions are empty. Takes some 20 ms per GiB of populated memory. Raises BorrowError if it is not possible."""
    code = 0
    try:
        with held.borrow() as borrowed:
            for left in _left_behind(held.pid):
                with suppress(BorrowError):
                    borrowed.syscall(NR["wait4"], left, 0, _WALL | os.WNOHANG, 0)
            code = borrowed.syscall(NR["mmap"], 0, PAGE_SIZE, _PROT_READ_EXEC, _MAP_PRIVATE_ANONYMOUS, -1, 0)
            try:
                borrowed.write(code, _BIRTH)
                child, result = _clone(borrowed, code)
            finally:
                borrowed.syscall(NR["munmap"], code, PAGE_SIZE)
            if is_error(result):
                error = -signed(result)
                raise BorrowError(held.pid, f"it cannot fork: {os.strerror(error)}", errno=error)
            address, own = borrowed.overwritten
        return _open(held.pid, child, result, address, own)
    except BaseException:
        if code:
            _end_newborn(code)
        raise


def _clone(borrowed: Borrowed, code: int) -> tuple[int, int]:
    """The child's pid, as we see it, and what clone(2) returns to the borrowed thread, which calls it at `code`.

    Raises ProcessChanged, StopTimeout, after which there may be a child."""
    thread = borrowed.thread
    thread.set_options(borrowed.options | PTRACE_O_TRACECLONE)
    try:
        registers = borrowed.registers_for(code)
        registers[RAX] = NR["clone"]
        for index, value in zip(ARGUMENTS, (_CLONE_FILES, 0, 0, 0, 0), strict=False):
            registers[index] = value
        for _ in range(_ATTEMPTS):
            thread.store(registers)
            child = _to_end_of_call(thread)
            # It begins again when a stop, or a signal that is blocked now, was on its way (kernel/fork.c, copy_process()).
            if thread.buffer[RAX] != WORD - ERESTARTNOINTR:
                break
        return child, thread.buffer[RAX]
    finally:
        thread.set_options(borrowed.options)


def _to_end_of_call(thread: HeldThread) -> int:
    """Let a thread make the system call that it stands before. Returns the child that it makes, 0 if none. Raises ProcessChanged, StopTimeout."""
    child = 0
    stops = 0
    while stops < 2:
        thread.go_on(ptrace.PTRACE_SYSCALL)
        started = time.monotonic()
        if not stopping.await_stop(thread, started + _SECONDS, started):
            raise ProcessChanged(thread.pid, "it was killed while it was being captured")
        _, event = stopping.stop_code(thread)
        if event >> 8 == PTRACE_EVENT_CLONE:
            try:
                child = new_task(thread.tid)
            except OSError as error:
                thread.gone(error)
        stops += event == stopping.SYSCALL_STOP
    return child


def _open(parent: int, child: int, inner_pid: int, address: int, own: bytes) -> FrozenChild:
    """The child, with what the borrow has overwritten in its memory put back. Raises BorrowError."""
    try:
        frozen = FrozenChild(parent, child, inner_pid)
        os.pwrite(frozen.memory, own, address)
        return frozen
    except OSError as error:
        _living.discard(child)
        raise BorrowError(parent, f"its frozen child cannot be read: {error.strerror}", errno=error.errno) from None


def _end_newborn(code: int) -> None:
    """End a child that was made at `code`, also one that we were not told of because its parent was killed at once: we trace it."""
    for pid in procfs.processes():
        with suppress(OSError, ValueError):
            if pid not in _living and int(procfs.status(pid)["TracerPid"]) == os.getpid() and _is_born_at(pid, code):
                os.kill(pid, signal.SIGKILL)
                _await_death(pid)


def _is_born_at(pid: int, code: int) -> bool:
    """Whether a process that we trace is a child that was made at `code`. Raises OSError."""
    deadline = time.monotonic() + _BIRTH_SECONDS
    while (place := procfs.read(pid, "syscall").split()) == [b"running"] and time.monotonic() < deadline:
        time.sleep(0.001)  # it is on its way to its first stop
    return place[-1] == b"%#x" % (code + _SYSCALL_SIZE)


def _left_behind(parent: int) -> Iterator[int]:
    """Zombies of frozen children whose vcsimg was killed, by the ids that their parent knows."""
    for pid in procfs.children(parent):
        with suppress(OSError):
            stat = procfs.stat(pid)
            if stat.state == "Z" and stat.comm == _NAME:
                yield int(procfs.status(pid)["NSpid"].split()[-1])


def _await_death(pid: int) -> None:
    """Until a killed child is a zombie: we, its tracer, are told first, perhaps of its first stop, and must take it for its parent to see it."""
    with suppress(ChildProcessError):
        while os.WIFSTOPPED(os.waitpid(pid, _WALL)[1]):
            pass
