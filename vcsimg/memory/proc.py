"""`/proc/PID/mem`, the way of Goanna (Spillane and others, "Rapid File System Development Using ptrace", 2007).

One pread or pwrite moves any length. It ignores page protection, as a debugger wants (the kernel's FOLL_FORCE; since 6.12 an
administrator can forbid that with `proc_mem.force_override`). The file stays bound to the address space that it was opened for: after an exec
or the end of the process it reads as empty, so it never shows another process's memory. See proc_pid_mem(5), fs/proc/base.c mem_rw().
"""

from __future__ import annotations

import errno
import os

from vcsimg.errors import AccessError, NoSuchProcess, NotPermitted, ProcessChanged
from vcsimg.memory.protocol import Buffer, Reader, WritableBuffer, check_range, flat


def open_memory_file(pid: int) -> int:
    """A file descriptor of /proc/PID/mem, readable and writable. Raises NoSuchProcess or NotPermitted."""
    try:
        return os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise NoSuchProcess(pid) from None
    except PermissionError as error:
        raise NotPermitted(pid, f"/proc/{pid}/mem: {error.strerror}") from None


def process_gone(pid: int) -> ProcessChanged:
    """The error of whoever finds no address space where there was one."""
    return ProcessChanged(pid, "it ended, or called exec, and the memory that was being used is gone")


class ProcMemory(Reader):
    """Memory by /proc/PID/mem. The process may run or be stopped; what it writes meanwhile may be seen or not.

    `descriptor`: an open /proc/PID/mem to use, which stays open at close(); None opens one.
    """

    def __init__(self, pid: int, descriptor: int | None = None) -> None:
        self.pid: int = pid
        self._mine = descriptor is None
        self._file = open_memory_file(pid) if descriptor is None else descriptor

    def fileno(self) -> int:
        """The descriptor of /proc/PID/mem."""
        return self._file

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # as in flat(), which would cost too much here
        try:
            done = os.preadv(self._file, (view,), address)
        except (OSError, OverflowError):
            done = 0
        return done if done == view.nbytes and done else self._read_rest(address, flat(view), done)

    def _read_rest(self, address: int, view: memoryview, done: int) -> int:
        """Go on after `done` bytes until all is read or the kernel says why it cannot be."""
        total = view.nbytes
        check_range(self.pid, address, total)
        while done < total:
            try:
                step = os.preadv(self._file, (view[done:],), address + done)
            except OSError as error:
                raise self._failed(address, total, done, error) from None
            if step == 0:
                raise process_gone(self.pid)
            done += step
        return total

    def write(self, address: int, data: Buffer) -> int:
        view = flat(data)
        total = view.nbytes
        check_range(self.pid, address, total)
        done = 0
        while done < total:
            try:
                step = os.pwrite(self._file, view[done:], address + done)
            except OSError as error:
                raise self._failed(address, total, done, error) from None
            if step == 0:
                raise process_gone(self.pid)
            done += step
        return total

    def alive(self, address: int = 0) -> bool:
        """Whether the address space that this file was opened for still exists. Quicker with an address that can be read."""
        try:
            return bool(os.pread(self._file, 1, address))
        except OSError:  # EIO: it exists, and nothing is mapped there
            return True

    def close(self) -> None:
        if self._mine and self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _failed(self, address: int, length: int, done: int, error: OSError) -> AccessError:
        # The kernel says EIO for memory that is not mapped, where every other way says EFAULT.
        number = errno.EFAULT if error.errno == errno.EIO else error.errno or errno.EFAULT
        return AccessError(self.pid, address, length, done, number)
