"""What every way to another process's memory offers, and the checks that all of them share.

A backend has an address space and moves bytes between it and buffers of ours. Transfers are exact: a call returns when all bytes
were moved, or raises AccessError, whose `done` says how many were. Nothing beyond `done` was touched on the receiving side.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from vcsimg.errors import AccessError

WritableBuffer = bytearray | memoryview | mmap.mmap | npt.NDArray[Any]
"""A contiguous buffer of ours that is written to. Its length counts in bytes, whatever its items are."""

Buffer = bytes | WritableBuffer
"""A contiguous buffer of ours that is read from."""

RangeArray = npt.NDArray[np.uint64]
"""Shape (n, 2): address and length of each range, the layout of an array of struct iovec."""

Ranges = Sequence[tuple[int, int]] | RangeArray
"""Ranges of remote memory: (address, length) each; [address, address + length)."""

ADDRESS_LIMIT = 1 << 63
"""Addresses from here on are the kernel's on every 64-bit Linux, and do not fit a file offset."""

_FEW = 16
"""Ranges; with so many, Python is quicker than numpy is to call."""


class Memory(Protocol):
    """Memory that is not ours, by address. All backends raise AccessError and ProcessChanged (it ended, or called exec)."""

    @property
    def pid(self) -> int | None:
        """The process that it belongs to; None when it belongs to none."""
        ...

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        """Fill the buffer with the bytes from `address` on; returns how many: all."""
        ...

    def write(self, address: int, data: Buffer) -> int:
        """Store all of `data` from `address` on; returns how many bytes: all."""
        ...

    def read_many(self, ranges: Ranges, buffer: WritableBuffer) -> int:
        """Read ranges into consecutive parts of the buffer, which has room for all; returns how many bytes.

        AccessError names the range that failed; `earlier` says how many bytes of ranges before it are in the buffer.
        """
        ...

    def close(self) -> None:
        """Give back what this reader holds. Idempotent."""
        ...


class Reader:
    """What backends have in common: reading to fresh bytes, and the `with` statement."""

    pid: int | None

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        raise NotImplementedError

    def write(self, address: int, data: Buffer) -> int:
        raise NotImplementedError

    def read_ranges(self, ranges: RangeArray, view: memoryview) -> int:
        """read_many() for ranges that are checked, and a flat view of bytes."""
        done = 0
        for address, length in ranges.tolist():
            try:
                self.read_into(address, view[done : done + length])
            except AccessError as error:
                raise AccessError(self.pid, address, length, error.done, error.errno, earlier=done) from None
            done += length
        return done

    def close(self) -> None:
        raise NotImplementedError

    def read_many(self, ranges: Ranges, buffer: WritableBuffer) -> int:
        """Read ranges into consecutive parts of the buffer, which has room for all; returns how many bytes. Errors: see Memory."""
        view = flat(buffer)
        return self.read_ranges(as_ranges(self.pid, ranges, view.nbytes), view)

    def read(self, address: int, length: int) -> bytes:
        """The bytes [address, address + length). Raises AccessError as `read_into` does, also for a length that no memory can have."""
        if length < 0 or address < 0 or address + length > ADDRESS_LIMIT:
            raise AccessError(self.pid, address, length, 0, errno.EINVAL if length < 0 else errno.EFAULT)
        try:
            buffer = bytearray(length)
        except (MemoryError, OverflowError):
            raise AccessError(self.pid, address, length, 0, errno.ENOMEM) from None
        self.read_into(address, buffer)
        return bytes(buffer)

    def stream(self, batches: Iterable[Ranges]) -> Iterator[memoryview]:
        """The contents of each batch of ranges in turn. A view is good until the next one is asked for."""
        buffer = bytearray()
        for batch in batches:
            array = as_ranges(self.pid, batch, ADDRESS_LIMIT)
            length = total_length(array)
            if length > len(buffer):
                buffer = bytearray(length)
            view = memoryview(buffer)[:length]
            self.read_many(array, view)
            yield view

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def flat(buffer: Buffer) -> memoryview:
    """The buffer as a flat view of bytes, without a copy. Raises TypeError when it is not contiguous."""
    view = memoryview(buffer)  # type: ignore[arg-type]  # numpy's stubs hide that arrays are buffers before Python 3.12
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def check_range(pid: int | None, address: int, length: int) -> None:
    """Raises AccessError unless [address, address + length) can lie in the memory of a program."""
    if address < 0 or address + length > ADDRESS_LIMIT:
        raise AccessError(pid, address, length, 0, errno.EFAULT)


def as_ranges(pid: int | None, ranges: Ranges, room: int) -> RangeArray:
    """The ranges as an array, checked: none leaves the address space, and all together fit `room` bytes.

    Raises AccessError for a range that no program can have, ValueError when the buffer is too small.
    """
    if not isinstance(ranges, np.ndarray):
        for address, length in ranges:
            if length < 0:
                raise AccessError(pid, address, length, 0, errno.EINVAL)
            check_range(pid, address, length)
        ranges = np.array(ranges, np.uint64).reshape(-1, 2)
    array = np.ascontiguousarray(ranges, np.uint64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"ranges have the shape {array.shape}, not (n, 2)")
    if len(array) <= _FEW:
        total = 0
        for address, length in array.tolist():
            check_range(pid, address, length)
            total += length
    else:
        ends = array[:, 0] + array[:, 1]
        wrong = (ends < array[:, 0]) | (ends > ADDRESS_LIMIT)
        if wrong.any():
            address, length = (int(number) for number in array[int(wrong.argmax())])
            raise AccessError(pid, address, length, 0, errno.EFAULT)
        total = int(array[:, 1].sum(dtype=np.float64))  # a sum of huge lengths must not wrap around
    if total > room:
        raise ValueError(f"the ranges hold {total} bytes, the buffer has room for {room}")
    return array


def total_length(ranges: RangeArray) -> int:
    """Bytes in all ranges."""
    return int(ranges[:, 1].sum())


def split(ranges: RangeArray, room: int, limit: int) -> Iterator[RangeArray]:
    """The same bytes in the same order as batches of at most `limit` ranges and `room` bytes; a range that does not fit is cut."""
    rest = ranges
    while len(rest):
        batch = rest[:limit]
        ends = np.cumsum(batch[:, 1])
        whole = int(np.searchsorted(ends, np.uint64(room), side="right"))
        if whole == len(batch):
            rest = rest[limit:]
            yield batch
            continue
        part = np.uint64(room - (int(ends[whole - 1]) if whole else 0))
        batch = batch[: whole + 1].copy()
        batch[whole, 1] = part
        rest = rest[whole:].copy()
        rest[0] += np.array((part, np.uint64(0)))
        rest[0, 1] -= part
        yield batch


def locate(ranges: RangeArray, done: int) -> tuple[int, int]:
    """Where the transfer of `ranges` stands after `done` bytes: (index of the range, bytes done in it). Empty ranges count as done."""
    ends = np.cumsum(ranges[:, 1], dtype=np.uint64)
    index = int(np.searchsorted(ends, np.uint64(done), side="right"))
    return index, done - (int(ends[index - 1]) if index else 0)


def failed_at(pid: int | None, ranges: RangeArray, done: int, error: int) -> AccessError:
    """The error of a transfer of several ranges that stopped after `done` bytes."""
    index, part = locate(ranges, done)
    address, length = (int(number) for number in ranges[index])
    return AccessError(pid, address, length, part, error, earlier=done - part)
