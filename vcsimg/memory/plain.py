"""Memory that is only bytes of ours: what tests put in the place of a process."""

from __future__ import annotations

from collections.abc import Mapping

from vcsimg.errors import AccessError
from vcsimg.memory.protocol import Buffer, Reader, WritableBuffer, check_range, flat


class BytesMemory(Reader):
    """An address space of buffers: `segments` maps the address of each to its bytes. They must not overlap; adjacent ones join."""

    pid = None

    def __init__(self, segments: Mapping[int, bytearray]) -> None:
        self._segments = sorted(segments.items())

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        view = flat(buffer)
        done = 0
        for part in self._parts(address, view.nbytes):
            view[done : done + len(part)] = part
            done += len(part)
        return self._whole(address, view.nbytes, done)

    def write(self, address: int, data: Buffer) -> int:
        view = flat(data)
        done = 0
        for part in self._parts(address, view.nbytes):
            part[:] = view[done : done + len(part)]
            done += len(part)
        return self._whole(address, view.nbytes, done)

    def close(self) -> None:
        pass

    def _parts(self, address: int, length: int) -> list[memoryview]:
        """What there is of [address, address + length), without a gap from its start on."""
        check_range(self.pid, address, length)
        parts = []
        end = address + length
        for start, data in self._segments:
            if start <= address < min(end, start + len(data)):
                part = memoryview(data)[address - start : end - start]
                parts.append(part)
                address += len(part)
        return parts

    def _whole(self, address: int, length: int, done: int) -> int:
        if done < length:
            raise AccessError(self.pid, address, length, done)
        return length
