"""process_vm_readv and process_vm_writev: one system call for up to 1,024 ranges, one copy, page protection honoured."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

import numpy as np

from vcsimg.errors import AccessError, NotPermitted, UnsupportedKernel, VcsimgError
from vcsimg.kernel.vmio import IOV_MAX, process_vm_readv, process_vm_writev
from vcsimg.memory.proc import ProcMemory, process_gone
from vcsimg.memory.protocol import (
    Buffer,
    RangeArray,
    Reader,
    WritableBuffer,
    check_range,
    failed_at,
    flat,
    locate,
    total_length,
)


def writable_address(view: memoryview) -> int:
    """Where a writable buffer of ours, not empty, lies. Raises TypeError when it is read-only. Valid while the buffer is kept."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class VmMemory(Reader):
    """Memory by process_vm_readv/writev.

    These calls find the process by its number alone. `stopped`: the caller keeps it stopped, so it cannot call exec in between. Otherwise
    each transfer is followed by a look at whether the address space of the beginning still exists, and ProcessChanged is raised
    if not. (So a write may have reached the new program by then: write to a running process with ProcMemory.)
    """

    def __init__(self, pid: int, *, stopped: bool = False, descriptor: int | None = None) -> None:
        """`descriptor`: as in ProcMemory; needed only if it is not stopped. Raises NoSuchProcess or NotPermitted."""
        self.pid: int = pid
        self._guard = None if stopped else ProcMemory(pid, descriptor)
        self._one = (ctypes.c_uint64 * 4)()  # struct iovec: ours, then the process's
        self._words = memoryview(self._one).cast("B").cast("Q")
        self._local = ctypes.addressof(self._one)
        self._remote = self._local + 16

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        view = flat(buffer)
        total = view.nbytes
        check_range(self.pid, address, total)
        return self._move(process_vm_readv, address, writable_address(view), total) if total else 0

    def write(self, address: int, data: Buffer) -> int:
        view = flat(data)
        total = view.nbytes
        check_range(self.pid, address, total)
        if not total:
            return 0
        ours = np.frombuffer(view, np.uint8)  # kept: its address is used until the transfer is over
        return self._move(process_vm_writev, address, ours.ctypes.data, total)

    def _move(self, call: Callable[[int, int, int, int, int], int], address: int, local: int, total: int) -> int:
        words = self._words
        done = 0
        while done < total:
            words[0] = local + done
            words[2] = address + done
            words[1] = words[3] = total - done
            try:
                done += call(self.pid, self._local, 1, self._remote, 1)
            except OSError as error:
                raise self._failed(AccessError(self.pid, address, total, done, error.errno or errno.EFAULT)) from None
        self._check(address)
        return total

    def read_ranges(self, ranges: RangeArray, view: memoryview) -> int:
        total = total_length(ranges)
        if not total:
            return 0
        local = writable_address(view)
        done = 0
        rest = ranges
        while done < total:
            batch = rest[:IOV_MAX]
            self._words[0] = local + done
            self._words[1] = wanted = total_length(batch)
            try:
                moved = process_vm_readv(self.pid, self._local, 1, batch.ctypes.data, len(batch))
            except OSError as error:
                raise self._failed(failed_at(self.pid, ranges, done, error.errno or errno.EFAULT)) from None
            done += moved
            if moved == wanted:
                rest = rest[IOV_MAX:]
            else:  # ask again from the place where it stopped: the kernel says why only when it moves nothing
                index, part = locate(rest, moved)
                rest = rest[index:].copy()
                rest[0, 0] += np.uint64(part)
                rest[0, 1] -= np.uint64(part)
        self._check(int(ranges[0, 0]))
        return total

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()

    def _check(self, address: int) -> None:
        if self._guard is not None and not self._guard.alive(address):
            raise process_gone(self.pid)

    def _failed(self, error: AccessError) -> VcsimgError:
        """What a failed call means."""
        if error.errno == errno.ESRCH or (self._guard is not None and not self._guard.alive()):
            return process_gone(self.pid)
        if error.errno == errno.EPERM:
            return NotPermitted(error.pid or 0, "process_vm_readv: it may not be traced")
        if error.errno == errno.ENOSYS:
            return UnsupportedKernel("process_vm_readv", "it was built without CONFIG_CROSS_MEMORY_ATTACH")
        return error
