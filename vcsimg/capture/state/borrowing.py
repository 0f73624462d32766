"""Borrowed system calls, collected first and made all in one resume of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vcsimg.image.units import RemoteAddress
from vcsimg.process import Borrowed

_ALIGNMENT = 16


@dataclass(slots=True)
class Buffer:
    """Zeroed room in the target for what a system call writes; `data` is what stands in it afterwards."""

    offset: int
    size: int
    data: bytes = b""


@dataclass(slots=True)
class Call:
    """A system call to be borrowed; a Buffer among the arguments stands for its address. `result`: negative errno when it failed."""

    number: int
    arguments: Sequence[int | Buffer]
    result: int | None = None


@dataclass(slots=True)
class Borrowings:
    """System calls that a thread of the target shall make."""

    calls: list[Call] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    size: int = 0

    def buffer(self, size: int) -> Buffer:
        """Room of `size` bytes."""
        buffer = Buffer(self.size, size)
        self.size += (size + _ALIGNMENT - 1) & -_ALIGNMENT
        self.buffers.append(buffer)
        return buffer

    def call(self, number: int, *arguments: int | Buffer) -> Call:
        """Note a system call."""
        call = Call(number, arguments)
        self.calls.append(call)
        return call

    def run(self, borrowed: Borrowed, room: RemoteAddress) -> None:
        """Make the calls, with buffers from `room` on. Raises BorrowError when they cannot be made (one that fails says so itself)."""
        results = borrowed.batch(
            [
                (call.number, [room + word.offset if isinstance(word, Buffer) else word for word in call.arguments])
                for call in self.calls
            ]
        )
        data = borrowed.read(room, self.size) if self.size else b""
        for call, result in zip(self.calls, results, strict=True):
            call.result = result
        for buffer in self.buffers:
            buffer.data = data[buffer.offset : buffer.offset + buffer.size]
