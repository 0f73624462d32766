"""The names under which the dynamic linker knows what it loaded: often symbolic links to the files in the map.

    AT_PHDR ──▶ PT_DYNAMIC ──▶ DT_DEBUG ──▶ r_debug.r_map ──▶ link_map ──▶ link_map ──▶ …

Sources: link.h, System V ABI ("Dynamic Linking"), getauxval(3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vcsimg.errors import AccessError
from vcsimg.image.pages import Memory

AT_PHDR = 3
AT_PHNUM = 5
_PT_DYNAMIC = 2
_PT_PHDR = 6
_DT_DEBUG = 21
_PROGRAM_HEADER = 56
_LIMIT = 1 << 16
"""No program loads more libraries, or has more entries in a table: what a damaged or hostile image claims is cut here."""


def loaded_libraries(memory: Memory, auxv: dict[int, int]) -> Iterator[tuple[str, int]]:
    """(name, address of its dynamic section) of each library; empty for a static program, and as far as memory can be read."""
    try:
        yield from _walk(memory, _first(memory, auxv))
    except AccessError:
        return


def _first(memory: Memory, auxv: dict[int, int]) -> int:
    """The address of the first link_map; 0 if there is none."""
    table, count = auxv.get(AT_PHDR, 0), min(auxv.get(AT_PHNUM, 0), _LIMIT)
    if not table:
        return 0
    headers = [struct.unpack("<IIQQQQQQ", memory.read(table + index * _PROGRAM_HEADER, _PROGRAM_HEADER)) for index in range(count)]
    bias = next((table - header[3] for header in headers if header[0] == _PT_PHDR), 0)
    dynamic = next((header for header in headers if header[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return 0
    for entry in range(min(dynamic[6] // 16, _LIMIT)):
        tag, value = struct.unpack("<QQ", memory.read(bias + dynamic[3] + entry * 16, 16))
        if tag == 0:
            break
        if tag == _DT_DEBUG and value:
            return _word(memory, value + 8)
    return 0


def _walk(memory: Memory, address: int) -> Iterator[tuple[str, int]]:
    seen: set[int] = set()
    while address and address not in seen and len(seen) < _LIMIT:
        seen.add(address)
        _, name, dynamic, address = struct.unpack("<QQQQ", memory.read(address, 32))
        yield _string(memory, name), dynamic


def _word(memory: Memory, address: int) -> int:
    return int.from_bytes(memory.read(address, 8), "little")


def _string(memory: Memory, address: int, limit: int = 4096) -> str:
    """Bytes up to a NUL, read no further than the page in which it lies."""
    out = b""
    while len(out) < limit and b"\0" not in out:
        out += memory.read(address + len(out), 256 - (address + len(out)) % 256)
    return out.partition(b"\0")[0].decode("utf-8", "surrogateescape")
