"""A process whose threads are all stopped, and that is given back as it was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vcsimg.errors import NoSuchProcess, ProcessChanged, UnsupportedProcess
from vcsimg.kernel import procfs
from vcsimg.kernel.x86_64 import CS, CS_32BIT
from vcsimg.process import stopping
from vcsimg.process.borrow import Borrowed, borrowing
from vcsimg.process.refusal import refusal
from vcsimg.process.thread import HeldThread


class HeldProcess:
    """A process, every thread of which is stopped. Made by hold() and hold_tree()."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.stopped_at = 0.0
        self.pause = 0.0
        self._threads: dict[int, HeldThread] = {}
        self._memory = -1
        self._pagemap = -1

    @property
    def threads(self) -> list[HeldThread]:
        """The main thread first, then ascending. A main thread that has ended while others live is not among them."""
        return sorted(self._threads.values(), key=lambda thread: (thread.tid != self.pid, thread.tid))

    @property
    def memory(self) -> int:
        """/proc/PID/mem, open for reading and writing until the hold's block ends, also after release()."""
        if self._memory < 0:
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        return self._memory

    @property
    def pagemap(self) -> int:
        """/proc/PID/pagemap, open for reading until the hold's block ends, also after release()."""
        if self._pagemap < 0:
            self._pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        return self._pagemap

    @property
    def can_borrow(self) -> str | None:
        """None, or the reason why no system call can be borrowed."""
        return borrowing(self.pid, self.threads, self.memory)[1]

    def borrow(self, thread: HeldThread | None = None) -> Borrowed:
        """Lend a thread to make system calls with: `with held.borrow() as borrowed:`. Raises BorrowError."""
        return Borrowed(self.pid, [thread] if thread is not None else self.threads, self.memory)

    def stop(self, deadline: float) -> None:
        """Stop every thread, however many come while we do."""
        started = time.monotonic()
        self.stopped_at = self.stopped_at or started
        dead: set[int] = set()
        while True:
            try:
                tids = [tid for tid in procfs.threads(self.pid) if tid not in self._threads and tid not in dead]
            except OSError:
                raise NoSuchProcess(self.pid) from None
            fresh = []
            for tid in tids:
                # Noted before it is seized: an exception in between must not leave it stopped.
                thread = self._threads[tid] = HeldThread(self.pid, tid)
                if stopping.seize(thread):
                    fresh.append(thread)
                else:
                    del self._threads[tid]
                    if tid == self.pid:
                        dead.add(tid)
            for thread in fresh:
                if stopping.await_stop(thread, deadline, started):
                    try:
                        stopping.settle(thread)
                    except stopping.ExecHappened:
                        raise ProcessChanged(self.pid, "it called exec while it was being stopped") from None
                else:
                    stopping.reap(thread)
                    del self._threads[thread.tid]
            if not fresh:
                break
        if not self._threads:
            raise refusal(self.pid)
        if any(thread.buffer[CS] == CS_32BIT for thread in self._threads.values()):
            raise UnsupportedProcess(self.pid, "it is a 32-bit process")

    def release(self) -> None:
        """Let all threads go on. Nothing more happens when called again."""
        if not self._threads:
            return
        while self._threads:
            _, thread = next(reversed(self._threads.items()))
            stopping.release(thread)
            del self._threads[thread.tid]
        self.pause = time.monotonic() - self.stopped_at

    def close(self) -> None:
        """release(), and close the descriptors."""
        try:
            self.release()
        finally:
            for fd in (self._memory, self._pagemap):
                if fd >= 0:
                    os.close(fd)
            self._memory = self._pagemap = -1


@contextmanager
def hold(pid: int, timeout: float = 5.0) -> Iterator[HeldProcess]:
    """Stop every thread of a process for the length of a `with` block."""
    held = HeldProcess(pid)
    try:
        held.stop(time.monotonic() + timeout)
        yield held
    finally:
        held.close()


@contextmanager
def hold_tree(pid: int, timeout: float = 5.0) -> Iterator[list[HeldProcess]]:
    """Stop a process and all its descendants, all at one instant: root first, parents before children."""
    helds: list[HeldProcess] = []
    known: set[int] = set()
    deadline = time.monotonic() + timeout
    try:
        fresh = [pid]
        while fresh:
            for each in fresh:
                held = HeldProcess(each)
                helds.append(held)
                known.add(each)
                held.stop(deadline)
            fresh = [child for held in helds for child in procfs.children(held.pid) if child not in known]
        yield helds
    finally:
        for held in reversed(helds):
            held.close()
