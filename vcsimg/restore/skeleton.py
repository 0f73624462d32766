"""A process with nothing in it yet but the arena and the kernel's vdso: what an image is put into."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from signal import SIGCHLD, SIGKILL

from vcsimg.errors import RestoreError
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Process
from vcsimg.kernel import mman, procfs, ptrace
from vcsimg.kernel.clone import ARGS, CLONE_PTHREAD, clone_args
from vcsimg.kernel.prctl_set import SET_NAME
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import NO_SYSTEM_CALL, ORIG_RAX, RSP, WORD
from vcsimg.process.code import find_code
from vcsimg.restore import arena
from vcsimg.restore.remote import OPTIONS, Remote

_MARGIN = 1 << 21
_LOWEST = 1 << 32
_RSEQ_UNREGISTER = 1
_WALL = 0x40000000
_SECONDS = 10.0
TASK_SIZE = (1 << 47) - (1 << 12)


class Skeleton:
    """`pid`: inside its namespace; `tid`: the same process as we see it. `threads`: by the id inside; the main thread is one of them.
    `waits`: results of interrupted system calls, by thread (waits.arm)."""

    def __init__(self, process: Process, tid: int, base: int) -> None:
        self.process = process
        self.pid = process.pid
        self.tid = tid
        self.base = base
        self.memory = os.open(f"/proc/{tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self.main = Remote(tid, process.pid, self.memory, base)
        self.threads: dict[int, Remote] = {process.pid: self.main}
        self.transport = -1
        self.waits: dict[int, int] = {}

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.memory)

    def kill(self) -> None:
        """End it, and reap what we trace of it: threads before the main thread."""
        with suppress(OSError):
            os.kill(self.tid, SIGKILL)
        for remote in reversed(self.threads.values()):
            _reap(remote.tid)

    def let_go(self) -> None:
        """It runs from now on. The first of its threads, or a process that runs already, may end it before the last is let go."""
        ended = []
        for remote in self.threads.values():
            try:
                ptrace.call(ptrace.PTRACE_DETACH, remote.tid, 0, 0)
            except ProcessLookupError:
                ended.append(remote.tid)
        for tid in reversed(ended):
            _reap(tid)

    def special(self) -> list[Region]:
        """The kernel's own regions in it, but vsyscall."""
        return [region for region in procfs.read_maps(self.tid) if region.special and region.start < TASK_SIZE]

    def empty(self) -> None:
        """From a fork of us, just seized, to a skeleton. Raises RestoreError."""
        self.main.wait()
        self.main.block_signals()
        registers = self.main.fetch()
        registers[ORIG_RAX] = NO_SYSTEM_CALL
        registers[RSP] = 0
        self.main.store(registers)
        code = find_code(self.tid, self.tid, self.memory)
        if code is None:
            raise RestoreError(f"process {self.pid}", "its skeleton has no system call instruction")
        flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED_NOREPLACE
        protection = mman.PROT_READ | mman.PROT_WRITE | mman.PROT_EXEC
        result = self.main.at(code.call, NR["mmap"], self.base, arena.SIZE, protection, flags, WORD - 1, 0)
        if result != self.base:
            raise RestoreError(f"process {self.pid}", f"no memory to drive it: {os.strerror(-result)}")
        os.pwrite(self.memory, arena.LOOP, self.base)
        area = ptrace.rseq_configuration(self.tid)
        if area is not None:
            # Inherited from us: the kernel would write to memory that is about to go.
            args = (area.rseq_abi_pointer, area.rseq_abi_size, _RSEQ_UNREGISTER, area.signature)
            self.main.all([(NR["rseq"], args)], f"process {self.pid}")
        kept = sorted([(self.base, self.base + arena.SIZE), *((region.start, region.end) for region in self.special())])
        calls = []
        position = 0
        for start, end in [*kept, (TASK_SIZE, TASK_SIZE)]:
            if start > position:
                calls.append((NR["munmap"], (position, start - position)))
            position = end
        self.main.all(calls, f"process {self.pid}")

    def add_thread(self, inner: int) -> Remote:
        """A new thread with this id. Raises RestoreError."""
        remote = Remote(self._clone(CLONE_PTHREAD, 0, inner, f"thread {inner}"), inner, self.memory, self.base)
        remote.wait()
        remote.block_signals()
        self.threads[inner] = remote
        return remote

    def fork(self, child: Process, flags: int = 0, exit_signal: int = SIGCHLD) -> Skeleton:
        """A child skeleton with the id that the image says. Raises RestoreError."""
        skeleton = Skeleton(child, self._clone(flags, exit_signal, child.pid, f"process {child.pid}"), self.base)
        skeleton.main.wait()
        skeleton.main.block_signals()
        skeleton.transport = self.transport
        return skeleton

    def end_main_thread(self) -> None:
        """The main thread ends, and another one is `main` from now on: as when main() calls pthread_exit(3). Nobody traces it then, so that when
        the others have ended, too, the process's parent is told at once. Raises RestoreError."""
        leader = self.threads.pop(self.pid)
        name = leader.put(os.fsencode(self.process.name)[:15] + b"\0")
        leader.all([(NR["prctl"], (SET_NAME, name)), (NR["set_tid_address"], (0,))], f"thread {self.pid}")
        leader.store(leader.prepared([(NR["exit"], (0,))]))
        ptrace.call(ptrace.PTRACE_DETACH, leader.tid, 0, 0)
        deadline = time.monotonic() + _SECONDS
        while procfs.stat(self.tid).state not in "ZX":
            if time.monotonic() > deadline:
                raise RestoreError(f"thread {self.pid}", "it cannot be ended")
            time.sleep(0.0001)
        self.main = next(iter(self.threads.values()))

    def _clone(self, flags: int, exit_signal: int, inner: int, what: str) -> int:
        self.main.clear()
        ids = self.main.put(inner.to_bytes(4, "little"))
        args = self.main.put(clone_args(flags, exit_signal, ids, 1))
        self.main.all([(NR["clone3"], (args, ARGS.size))], what)
        return self.main.born.pop()


def arena_base(regions: Iterable[Region]) -> int:
    """An address for the arena that no region lies at or near."""
    position = _LOWEST
    for region in sorted(regions, key=lambda region: region.start):
        if region.start - _MARGIN >= position + arena.SIZE:
            break
        position = max(position, -(-(region.end + _MARGIN) // _MARGIN) * _MARGIN)
    if position + arena.SIZE > TASK_SIZE:
        raise RestoreError("memory", "no room between its regions to drive it")
    return position


def _reap(tid: int) -> None:
    """Wait for the end of a thread that we trace."""
    with suppress(ChildProcessError):
        while True:
            _, status = os.waitpid(tid, _WALL)
            if not os.WIFSTOPPED(status):
                break


def seize(tid: int) -> None:
    """Raises OSError."""
    ptrace.call(ptrace.PTRACE_SEIZE, tid, 0, OPTIONS)
    ptrace.call(ptrace.PTRACE_INTERRUPT, tid, 0, 0)
