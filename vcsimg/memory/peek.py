"""The two calls of the second paper: fast_peekdata and fast_pokedata.

They take a process's number, as ptrace does, and any length. In both, the destination comes first. The process may run. Inside
`with attached(memory)` they go through that memory; otherwise they keep /proc/PID/mem open for the last processes that they were used
for, and notice when such a process has called exec, or another process has got its number.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vcsimg.errors import AccessError, NoSuchProcess, ProcessChanged
from vcsimg.kernel import pidfd
from vcsimg.memory.auto import AutoMemory
from vcsimg.memory.protocol import Buffer, Reader, WritableBuffer, flat

_KEPT = 8
"""Processes whose memory is kept open: two descriptors each."""


@dataclass(frozen=True)
class _Known:
    memory: AutoMemory
    process: int
    """A pidfd."""

    def current(self) -> bool:
        """Whether the process still exists, so that nobody else can have its number."""
        try:
            pidfd.send_signal(self.process, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.memory.close()
        os.close(self.process)


_known: OrderedDict[int, _Known] = OrderedDict()
_attached: dict[int, Reader] = {}


def fast_peekdata(pid: int, addr: WritableBuffer, data: int, len: int) -> int:
    """Read `len` bytes at address `data` of process `pid` into the beginning of our buffer `addr`; returns `len`.

    Raises AccessError (EINVAL for a length that is negative or larger than the buffer), NoSuchProcess, NotPermitted, ProcessChanged (it
    ended, or called exec, during the call).
    """
    view = _checked(pid, data, flat(addr), len)
    if pid in _attached:
        return _attached[pid].read_into(data, view)
    try:
        return _memory(pid).read_into(data, view)
    except ProcessChanged:  # since the last call for this process: what was read is overwritten
        forget(pid)
        return _memory(pid).read_into(data, view)


def fast_pokedata(pid: int, addr: int, data: Buffer, len: int) -> int:
    """Write the first `len` bytes of our `data` to address `addr` of process `pid`; returns `len`. Raises what fast_peekdata does."""
    view = _checked(pid, addr, flat(data), len)
    if pid in _attached:
        return _attached[pid].write(addr, view)
    memory = _memory(pid)
    if not memory.alive():
        forget(pid)
        memory = _memory(pid)
    return memory.write(addr, view)


@contextmanager
def attached(memory: Reader) -> Iterator[None]:
    """Let the two calls use this memory for its process, until the block ends. Raises ValueError when it belongs to no process."""
    if memory.pid is None:
        raise ValueError("memory of no process")
    before = _attached.get(memory.pid)
    _attached[memory.pid] = memory
    try:
        yield
    finally:
        if before is None:
            del _attached[memory.pid]
        else:
            _attached[memory.pid] = before


def forget(pid: int) -> None:
    """Close what the two calls keep open for a process."""
    known = _known.pop(pid, None)
    if known is not None:
        known.close()


def _memory(pid: int) -> AutoMemory:
    known = _known.get(pid)
    if known is not None:
        if known.current():
            return known.memory
        forget(pid)
    try:
        process = pidfd.open(pid)
    except OSError:
        raise NoSuchProcess(pid) from None
    try:
        memory = AutoMemory(pid)
    except BaseException:
        os.close(process)
        raise
    while len(_known) >= _KEPT:
        forget(next(iter(_known)))
    _known[pid] = _Known(memory, process)
    return memory


def _checked(pid: int, address: int, view: memoryview, length: int) -> memoryview:
    if not 0 <= length <= view.nbytes:
        raise AccessError(pid, address, length, 0, errno.EINVAL)
    return view[:length]
