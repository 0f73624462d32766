"""An ELF core as the tests read it: independent of what wrote it."""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_right
from pathlib import Path


class Core:
    """`loads`: (address, memsz, offset, filesz, flags) of each PT_LOAD."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = struct.unpack("<16sHHIQQQIHHHHHH", file.read(64))
            assert header[0][:6] == b"\x7fELF\x02\x01"
            assert header[1] == 4
            count = header[10]
            if count == 0xFFFF:
                file.seek(header[6])
                count = struct.unpack("<IIQQQQIIQQ", file.read(64))[7]
            file.seek(header[5])
            headers = [struct.unpack("<IIQQQQQQ", file.read(56)) for _ in range(count)]
            self.loads = [(row[3], row[6], row[2], row[5], row[1]) for row in headers if row[0] == 1]
            note = next(row for row in headers if row[0] == 4)
            file.seek(note[2])
            self.notes = list(_notes(file.read(note[5])))
            self.file = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._loads = sorted(self.loads)
        self._starts = [load[0] for load in self._loads]

    def read(self, address: int, length: int) -> bytes:
        """Bytes of a range of addresses, up to the first that the file does not have."""
        out = b""
        while len(out) < length:
            position = address + len(out)
            load = self._loads[bisect_right(self._starts, position) - 1]
            skip = position - load[0]
            if skip >= load[3]:
                break
            out += self.file[load[2] + skip : load[2] + min(load[3], skip + length - len(out))]
        return out


def _notes(data: bytes) -> list[tuple[bytes, int, bytes]]:
    notes = []
    while data:
        name_size, size, kind = struct.unpack("<III", data[:12])
        start = 12 + (name_size + 3) // 4 * 4
        notes.append((data[12 : 12 + name_size - 1], kind, data[start : start + size]))
        data = data[start + (size + 3) // 4 * 4 :]
    return notes
