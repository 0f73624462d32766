"""The parts of the ELF format that a core file has. Sources: elf(5), core(5), System V ABI, include/uapi/linux/elf.h.

┌────────────────┬─────────────────┬────────────────┬───────┬─────────┬───────────────────────┐
│ ELF header, 64 │ program headers │ section header │ notes │ padding │ contents of segments  │
│                │ 56 each         │ if > 65534 phs │       │ to 4096 │ each a multiple of 4K │
└────────────────┴─────────────────┴────────────────┴───────┴─────────┴───────────────────────┘
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER_SIZE = 64
PROGRAM_HEADER_SIZE = 56
SECTION_HEADER_SIZE = 64

_ET_CORE = 4
_EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
PF_X, PF_W, PF_R = 1, 2, 4
PN_XNUM = 0xFFFF
"""In e_phnum: the real number of program headers stands in sh_info of section header 0."""

_IDENT = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64-bit, little-endian, version 1, System V


@dataclass(frozen=True, slots=True)
class ProgramHeader:
    """Elf64_Phdr. `filesz` bytes at `offset` of the file are the first of `memsz` bytes at `address`."""

    type: int
    flags: int
    offset: int
    address: int
    filesz: int
    memsz: int
    align: int

    def pack(self) -> bytes:
        return struct.pack("<IIQQQQQQ", self.type, self.flags, self.offset, self.address, 0, self.filesz, self.memsz, self.align)


def headers_size(count: int) -> int:
    """Bytes before the notes, for a number of program headers."""
    return HEADER_SIZE + count * PROGRAM_HEADER_SIZE + (SECTION_HEADER_SIZE if count >= PN_XNUM else 0)


def pack_headers(headers: Sequence[ProgramHeader]) -> bytes:
    """ELF header, program headers, and the section header that counts them if they are too many for the ELF header."""
    many = len(headers) >= PN_XNUM
    ident = struct.pack(
        "<16sHHIQQQIHHHHHH",
        _IDENT,
        _ET_CORE,
        _EM_X86_64,
        1,
        0,
        HEADER_SIZE,
        HEADER_SIZE + len(headers) * PROGRAM_HEADER_SIZE if many else 0,
        0,
        HEADER_SIZE,
        PROGRAM_HEADER_SIZE,
        PN_XNUM if many else len(headers),
        SECTION_HEADER_SIZE if many else 0,
        1 if many else 0,
        0,
    )
    counter = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 1, 0, len(headers), 0, 0) if many else b""
    return ident + b"".join(header.pack() for header in headers) + counter


def note(name: bytes, type_: int, content: bytes) -> bytes:
    """One note: sizes, type, name with its NUL, content; name and content padded to 4 bytes."""
    head = struct.pack("<III", len(name) + 1, len(content), type_)
    return head + _padded(name + b"\0") + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
