"""python-ptrace's memory calls, quicker: change one line of a program that uses its process objects.

    process = debugger.addProcess(pid, False)                    # before
    process = FastProcess(debugger.addProcess(pid, False))       # after

What concerns memory is done here; everything else (registers, stepping, signals, breakpoints) is passed on to the object inside.

Where python-ptrace 0.9.9 differs: its readBytes returns less than was asked for at the end of a mapping, its readWord and writeWord refuse
addresses that are not aligned, and its readCString says "truncated" for any string when max_size is not above chunk_length.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from sys import byteorder
from typing import Any

from ptrace import PtraceError

from vcsimg.errors import AccessError, ProcessChanged
from vcsimg.memory.auto import AutoMemory
from vcsimg.memory.protocol import Buffer, Reader
from vcsimg.process import HeldProcess

_WORD = ctypes.sizeof(ctypes.c_ulong)
_PAGE = 4096


class FastAccessError(AccessError, PtraceError):  # type: ignore[misc]
    """An AccessError that handlers for python-ptrace's errors catch too."""


class FastProcessGone(ProcessChanged, PtraceError):  # type: ignore[misc]
    """A ProcessChanged that handlers for python-ptrace's errors catch too."""


class FastProcess:
    """A process object with python-ptrace's methods for memory, by the quickest way there is.

    `process`: python-ptrace's object for a traced process, a process's number, a held process, or a memory to use. Raises NoSuchProcess,
    NotPermitted. All methods raise FastAccessError and FastProcessGone.
    """

    def __init__(self, process: Any) -> None:
        self._inner = None
        if isinstance(process, Reader):
            self._memory = process
        elif isinstance(process, int | HeldProcess):
            self._memory = AutoMemory(process)
        else:
            self._inner = process
            self._memory = AutoMemory(int(process.pid))
        self.pid = self._memory.pid
        self._close = weakref.finalize(self, self._memory.close) if self._memory is not process else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._inner is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._inner, name)

    def readBytes(self, address: int, size: int) -> bytes:
        """The bytes [address, address + size)."""
        with self._errors():
            return self._memory.read(address, size)

    def writeBytes(self, address: int, bytes: Buffer) -> None:
        """Store all bytes from `address` on, whatever the protection of the memory."""
        with self._errors():
            self._memory.write(address, bytes)

    def readWord(self, address: int) -> int:
        """The unsigned word at `address`, which need not be aligned."""
        return int.from_bytes(self.readBytes(address, _WORD), byteorder)

    def writeWord(self, address: int, word: int) -> None:
        """Store a word, signed or unsigned, at `address`, which need not be aligned."""
        self.writeBytes(address, (word % (1 << 8 * _WORD)).to_bytes(_WORD, byteorder))

    def readStruct(self, address: int, struct: type[Any]) -> Any:
        """A ctypes structure at `address`, as a copy; for a simple type such as c_int, its value."""
        value = struct.from_buffer_copy(self.readBytes(address, ctypes.sizeof(struct)))
        return value.value if isinstance(value, ctypes._SimpleCData) else value

    def readArray(self, address: int, basetype: type[Any], count: int) -> Any:
        """A ctypes array of `count` items at `address`, as a copy."""
        return self.readStruct(address, basetype * count)

    def readCString(self, address: int, max_size: int, chunk_length: int = 256) -> tuple[bytes, bool]:
        """(bytes before the first NUL, or `max_size` bytes if there is none among them; whether there is none).

        Reads no further than the page in which the string ends; `chunk_length` bounds the size of one read.
        """
        found = bytearray()
        while len(found) < max_size:
            step = min(chunk_length, max_size - len(found), _PAGE - address % _PAGE)
            chunk = self.readBytes(address, step)
            end = chunk.find(b"\0")
            if end >= 0:
                return bytes(found + chunk[:end]), False
            found += chunk
            address += step
        return bytes(found), True

    def close(self) -> None:
        """Close what was opened for the memory; python-ptrace's object stays as it is."""
        if self._close is not None:
            self._close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except AccessError as error:
            raise FastAccessError(error.pid, error.address, error.length, error.done, error.errno) from None
        except ProcessChanged as error:
            raise FastProcessGone(error.pid, "it ended, or called exec") from None
