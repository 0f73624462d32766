"""Processes whose threads are all stopped, and that are given back as they were.

All of it happens in one OS thread: the kernel knows a tracer by its thread. A held process is let go by the kernel itself when that thread,
or vcsimg, ends for whatever reason, SIGKILL included.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

from vcsimg.errors import AlreadyTraced, NoSuchProcess, NotPermitted, ProcessChanged, ProcessError, StopTimeout, UnsupportedProcess
from vcsimg.kernel import procfs
from vcsimg.kernel.x86_64 import CS, CS_32BIT
from vcsimg.process import abandoned, stopping
from vcsimg.process.borrow import Borrowed, Lender
from vcsimg.process.interrupts import deferred
from vcsimg.process.refusal import refusal
from vcsimg.process.thread import HeldThread
from vcsimg.process.waits import WaitMemory
from vcsimg.process.watchdog import watching

_FIRST_PATIENCE = 0.1
"""For how long, in seconds, threads that have stopped wait for one that does not. Then all go on for the same time before the next try,
with twice the patience: what the one waits for may be up to the others."""

_VFORK_SECONDS = 1.0
"""A vfork child that has not called exec or exit after this time is not about to."""

_LEAVE_SECONDS = 0.05
"""How long to wait at the end for a thread that has not stopped yet, before it is left to be let go when it does."""

_held_now: set[int] = set()
"""The processes that are held at this moment: ptrace does not refuse a second hold to the OS thread that has the first."""

_ELF_CLASS = 4
_ELFCLASS32 = 1


class HeldProcess:
    """A process, every thread of which is stopped. Made by hold() and hold_tree().

    `stopped_at`: time.monotonic() just before its first thread was asked to stop; `pause`: seconds from then until its last
    thread had been let go, known after release().
    """

    def __init__(self, pid: int, waits: WaitMemory | None, *, touched: bool = False) -> None:
        """`touched`: some of its threads have been held before, in a try that failed."""
        self.pid = pid
        self._touched = touched
        self._released = False
        self._counted = False
        self.stopped_at = 0.0
        self.pause = 0.0
        self._waits = waits
        self._tracer = threading.get_native_id()
        self._held: dict[int, HeldThread] = {}
        self._threads: list[HeldThread] = []
        self._lender = Lender()
        self._memory = -1
        self._pagemap = -1

    @property
    def threads(self) -> list[HeldThread]:
        """The main thread first, then ascending. A main thread that has ended while others live is not among them."""
        return list(self._threads)

    @property
    def memory(self) -> int:
        """/proc/PID/mem, open for reading and writing until the hold's block ends, also after release(). Raises ProcessChanged."""
        if self._memory < 0:
            self._memory = self._open("mem", os.O_RDWR)
        return self._memory

    @property
    def pagemap(self) -> int:
        """/proc/PID/pagemap, open for reading until the hold's block ends, also after release(). Raises ProcessChanged."""
        if self._pagemap < 0:
            self._pagemap = self._open("pagemap", os.O_RDONLY)
        return self._pagemap

    @property
    def can_borrow(self) -> str | None:
        """None, or the reason why no system call can be borrowed."""
        return self._lender.reason(self.pid, self._threads, self.memory)

    def borrow(self, thread: HeldThread | None = None) -> Borrowed:
        """Lend a thread to make system calls with, for the length of a `with` block: this one, or the one that suits best. Raises
        BorrowError if none can be."""
        return self._lender.lend(self.pid, self._threads if thread is None else [thread], self.memory)

    def release(self) -> None:
        """Let all threads go on. Nothing more happens when called again. Raises RuntimeError from another OS thread than the holder."""
        if self._released:
            return
        if threading.get_native_id() != self._tracer:
            raise RuntimeError(f"process {self.pid} is held by another thread of this program, which alone can release it")
        with deferred():
            if self._counted and self.pid not in self._held and stopping.is_ours(self.pid):
                # Another thread that we held has called exec since: it is the main one now.
                self._held[self.pid] = HeldThread(self.pid, self.pid)
            self._lender.take_back()
            if self._waits is not None:
                for thread in self._threads:
                    self._waits.going_on(thread)
            left = [thread for thread in reversed(self._held.values()) if not stopping.try_let_go(thread)]
            for thread in left:
                if not stopping.let_go(thread, _LEAVE_SECONDS):
                    abandoned.abandon(thread)
            self._held.clear()
            self._released = True
            if self._counted:
                _held_now.discard(self.pid)
            self.pause = time.monotonic() - self.stopped_at

    def close(self) -> None:
        """release(), and close the descriptors."""
        try:
            self.release()
        finally:
            memory, pagemap, self._memory, self._pagemap = self._memory, self._pagemap, -1, -1
            for fd in (memory, pagemap):
                if fd >= 0:
                    os.close(fd)

    def _stop(self, deadline: float, patience: float) -> None:
        """Stop every thread, however many come while we do. Raises ProcessError; StopTimeout at `deadline`, or when one thread has kept
        the others waiting for `patience` seconds."""
        if self.pid in _held_now:
            raise AlreadyTraced(self.pid, os.getpid())
        self._counted = True
        _held_now.add(self.pid)
        self.stopped_at = time.monotonic()
        while True:
            # Counting threads is cheap, listing them is not: none is missing if all are held.
            count = self._count()
            known = len(self._held) + self._main_is_over()
            if count == known and self._all_stopped(count):
                break
            if count <= known:
                raise stopping.Disturbed
            tids = self._list(count)
            with watching(self._held.values()) if count > 1 else nullcontext():
                self._seize([tid for tid in tids if tid not in self._held], deadline, patience)
            if not self._held:
                self._refuse_what_has_ended()
            if time.monotonic() > deadline:
                state = "threads appear faster than they can be stopped"
                raise StopTimeout(self.pid, max(tids), time.monotonic() - self.stopped_at, state)
        self._threads = sorted(self._held.values(), key=lambda thread: (thread.tid != self.pid, thread.tid))
        for thread in self._threads:
            if thread.buffer[CS] == CS_32BIT:
                self._refuse_32_bit()
                break
        if self._waits is not None:
            # The time is taken only now: a thread may have begun its wait after the hold began.
            now = time.monotonic()
            for thread in self._threads:
                self._waits.stopped(thread, lambda: self.memory, now)

    def _stop_main(self, deadline: float) -> None:
        """Stop the main thread alone. Raises ProcessError."""
        self.stopped_at = time.monotonic()
        self._counted = True
        _held_now.add(self.pid)
        self._seize([self.pid], deadline, math.inf)
        if not self._held:
            raise self._refusal()
        self._threads = list(self._held.values())

    def _seize(self, tids: Sequence[int], deadline: float, patience: float) -> None:
        fresh = []
        for tid in tids:
            # Noted before it is seized: an exception in between must not leave it stopped.
            thread = self._held[tid] = HeldThread(self.pid, tid)
            if abandoned.reclaim(tid):
                fresh.append(thread)
            elif tid == self.pid and self._touched and stopping.is_ours(tid) and not stopping.is_over(thread):
                # Another thread that we held has called exec since: it is the main one now.
                raise stopping.Disturbed
            elif stopping.seize(thread):
                self._touched = True
                fresh.append(thread)
            else:
                del self._held[tid]
        for thread in fresh:
            while True:
                if not stopping.await_stop(thread, deadline, self.stopped_at, patience):
                    stopping.reap(thread)
                    del self._held[thread.tid]
                    break
                if stopping.settle(thread):
                    break

    def _refusal(self) -> ProcessError:
        """Why the process, or none of its threads, can be seized."""
        error = refusal(self.pid)
        if self._touched and isinstance(error, (NoSuchProcess, UnsupportedProcess)):
            return ProcessChanged(self.pid, "it ended while it was being stopped")
        return error

    def _count(self) -> int:
        try:
            count = procfs.thread_count(self.pid)
        except OSError:
            count = 0
        if count == 0:
            raise self._refusal()
        return count

    def _list(self, count: int) -> list[int]:
        if count == 1:
            return [self.pid]
        try:
            # /proc has entries for thread ids too, which are no process ids.
            process = self.pid if self._held else int(procfs.status(self.pid)["Tgid"])
            tids = procfs.threads(self.pid)
        except OSError:
            raise self._refusal() from None
        if process != self.pid:
            raise UnsupportedProcess(self.pid, f"it is a thread of process {process}", remedy=f"Use the process id, {process}.")
        return tids

    def _all_stopped(self, count: int) -> bool:
        """Whether what is held is stopped still: a thread that was not held yet may have called exec, and ended the others."""
        return count == 1 or all(thread.fetch() for thread in self._held.values())

    def _refuse_what_has_ended(self) -> None:
        """No thread could be seized: the process has ended, unless it is in the middle of an exec."""
        try:
            stat = procfs.stat(self.pid)
        except OSError:
            raise self._refusal() from None
        if stat.state in "ZX" and stat.num_threads <= 1:
            raise self._refusal()

    def _main_is_over(self) -> bool:
        """Whether the main thread is a zombie, while others are held."""
        return bool(self._held) and self.pid not in self._held and stopping.is_over(HeldThread(self.pid, self.pid))

    def _refuse_32_bit(self) -> None:
        """A thread in 32-bit mode: of a 32-bit program, or of a 64-bit one that emulates."""
        try:
            with open(f"/proc/{self.pid}/exe", "rb") as file:
                head = file.read(_ELF_CLASS + 1)
        except OSError:
            return
        if head[_ELF_CLASS:] == bytes([_ELFCLASS32]):
            raise UnsupportedProcess(self.pid, "it is a 32-bit process: vcsimg knows the 64-bit ABI only")

    def _open(self, name: str, flags: int) -> int:
        try:
            # Through a thread that is held: a main thread that has ended has no memory.
            tid = self._threads[0].tid if self._threads else self.pid
            return os.open(f"/proc/{tid}/{name}", flags | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise ProcessChanged(self.pid, "it ended while it was held") from None
            raise NotPermitted(self.pid, f"its {name} file cannot be opened: {error.strerror}") from None


@contextmanager
def hold(pid: int, timeout: float = 5.0, waits: WaitMemory | None = None) -> Iterator[HeldProcess]:
    """Stop every thread of a process for the length of a `with` block.

    Everything is given back when it ends, however it ends. `waits`: pass the same one to each hold of a process that is held again and
    again, so that its waits with a timeout come to an end. Threads that were stopped already (SIGSTOP) stay so. Raises ProcessError:
    NoSuchProcess, NotPermitted, AlreadyTraced, UnsupportedProcess, ProcessChanged, and StopTimeout when a thread has not stopped after
    `timeout` seconds.
    """
    with _holding(pid, False, timeout, waits) as helds:
        yield helds[0]


@contextmanager
def hold_tree(pid: int, timeout: float = 5.0, waits: WaitMemory | None = None) -> Iterator[list[HeldProcess]]:
    """Stop a process and all its descendants, so that there is an instant at which all are stopped: the root first, parents before
    children. Zombies are not among them. Otherwise as hold()."""
    with _holding(pid, True, timeout, waits) as helds:
        yield helds


@contextmanager
def hold_main_thread(pid: int, timeout: float = 5.0) -> Iterator[HeldProcess]:
    """Stop only the main thread of a process, which others of its threads do not notice; to borrow it. Otherwise as hold(). Raises
    UnsupportedProcess when the main thread has ended."""
    abandoned.sweep()
    helds: list[HeldProcess] = []
    try:
        if pid in _held_now:
            raise AlreadyTraced(pid, os.getpid())
        helds.append(HeldProcess(pid, None))
        try:
            helds[0]._stop_main(time.monotonic() + timeout)
        except stopping.Disturbed:
            raise ProcessChanged(pid, "it called exec while it was being stopped") from None
        yield helds[0]
    finally:
        try:
            _close(helds)
        except BaseException:
            _close(helds)  # for an exception that came before it had begun
            raise


@contextmanager
def _holding(pid: int, tree: bool, timeout: float, waits: WaitMemory | None) -> Iterator[list[HeldProcess]]:
    abandoned.sweep()
    if pid == os.getpid():
        raise UnsupportedProcess(pid, "a process cannot hold itself")
    started = time.monotonic()
    deadline = started + timeout
    patience = _FIRST_PATIENCE
    touched = False
    while True:
        helds: list[HeldProcess] = []
        try:
            try:
                helds.append(HeldProcess(pid, waits, touched=touched))
                _stop_all(helds, tree, deadline, patience, waits)
            except (StopTimeout, stopping.Disturbed) as error:
                failure = error
                touched = True
            else:
                yield helds
                return
        finally:
            try:
                _close(helds)
            except BaseException:
                _close(helds)  # for an exception that came before it had begun
                raise
        now = time.monotonic()
        if isinstance(failure, StopTimeout):
            if now >= deadline or ("vfork" in failure.state and now - started > _VFORK_SECONDS):
                raise StopTimeout(failure.pid, failure.tid, now - started, failure.state) from None
            time.sleep(min(patience, deadline - now))
            patience *= 2
        elif now >= deadline:
            raise ProcessChanged(pid, "it calls exec again and again") from None


def _close(helds: list[HeldProcess]) -> None:
    """Close all, even when an exception comes at the very beginning."""
    try:
        with deferred(), ExitStack() as all_of_them:
            for held in helds:
                all_of_them.callback(held.close)
    except BaseException:
        with deferred():
            for held in helds:
                held.close()
        raise


def _stop_all(helds: list[HeldProcess], tree: bool, deadline: float, patience: float, waits: WaitMemory | None) -> None:
    """Stop the process in `helds`, or the tree below it, the rest of which is added; complete even when this fails."""
    helds[0]._stop(deadline, patience)
    looked = 0
    while tree and looked < len(helds):
        # A held process makes no more children, and those of all that are held are found before the loop ends.
        parent = helds[looked]
        looked += 1
        for child in procfs.children(parent.pid):
            if any(held.pid == child for held in helds):
                continue  # its parent has ended since it was found, and another one took it
            held = HeldProcess(child, waits)
            helds.append(held)
            try:
                held._stop(deadline, patience)
            except (NoSuchProcess, ProcessChanged):
                held.close()
                helds.remove(held)
            except UnsupportedProcess:
                if not stopping.is_over(HeldThread(child, child)):
                    raise
                held.close()
                helds.remove(held)
