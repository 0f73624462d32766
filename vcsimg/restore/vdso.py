"""The kernel's own pages, vdso and vvar: moved to where the image has them.

If this kernel's vdso is another one, the image's stays where it was, as plain memory, and its functions jump to those of this kernel's, which is
put where there is room.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from vcsimg.errors import AccessError, RestoreError
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Process
from vcsimg.kernel import mman
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import WORD
from vcsimg.restore.skeleton import TASK_SIZE, Skeleton

_VDSO = "[vdso]"
_MOVE = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED
_GAP = 1 << 21
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_SYMTAB = 5, 6
_SYMBOL = struct.Struct("<IBBHQQ")


def make_way(skeleton: Skeleton) -> None:
    """Before the other mappings are made: the skeleton's kernel pages may lie where one of them belongs. Raises RestoreError."""
    here = skeleton.special()
    if here and any(
        not region.special and region.start < here[-1].end and here[0].start < region.end for region in skeleton.process.regions
    ):
        _shift(skeleton, here, 0, _room(skeleton, here[-1].end - here[0].start) - here[0].start)


def restore_vdso(skeleton: Skeleton) -> None:
    """After the other mappings were made. Raises RestoreError."""
    process = skeleton.process
    here = skeleton.special()
    wanted = [region for region in process.regions if region.special and region.start < TASK_SIZE]
    if not wanted:
        _unmap(skeleton, here)
        return
    content = _content(process, wanted)
    if _shape(here) == _shape(wanted) and content is not None and content == _current(skeleton, here):
        delta = wanted[0].start - here[0].start
        _move(skeleton, here, delta)
    else:
        _redirect(skeleton, here, wanted, content)


def _shape(regions: Sequence[Region]) -> list[tuple[str, int, int]]:
    return [(region.name, region.start - regions[0].start, region.end - region.start) for region in regions]


def _content(process: Process, regions: Sequence[Region]) -> bytes | None:
    assert process.memory is not None
    for region in regions:
        if region.name == _VDSO:
            try:
                return process.memory.read(region.start, region.end - region.start)
            except AccessError:
                return None
    return None


def _current(skeleton: Skeleton, regions: Sequence[Region]) -> bytes | None:
    for region in regions:
        if region.name == _VDSO:
            return os.pread(skeleton.memory, region.end - region.start, region.start)
    return None


def _unmap(skeleton: Skeleton, regions: Sequence[Region]) -> None:
    calls = [(NR["munmap"], (region.start, region.end - region.start)) for region in regions]
    skeleton.main.all(calls, "vdso")


def _move(skeleton: Skeleton, here: Sequence[Region], delta: int) -> None:
    """Move regions by `delta`, by way of another place if old and new overlap."""
    if delta == 0:
        return
    low, high = here[0].start, here[-1].end
    if low < high + delta and low + delta < high:
        away = _room(skeleton, high - low) - low
        _shift(skeleton, here, 0, away)
        _shift(skeleton, here, away, delta)
    else:
        _shift(skeleton, here, 0, delta)


def _shift(skeleton: Skeleton, regions: Sequence[Region], start: int, end: int) -> None:
    calls = []
    for region in regions:
        size = region.end - region.start
        calls.append((NR["mremap"], (region.start + start, size, size, _MOVE, region.start + end)))
    skeleton.main.all(calls, "vdso")


def _room(skeleton: Skeleton, size: int) -> int:
    """An address where the image has nothing, nor the skeleton."""
    taken = [(region.start, region.end) for region in skeleton.process.regions]
    taken += [(region.start, region.end) for region in skeleton.special()]
    taken.append((skeleton.base, skeleton.base + (1 << 21)))
    position = 1 << 33
    for start, end in sorted(taken):
        if start - _GAP >= position + size:
            break
        position = max(position, -(-(end + _GAP) // _GAP) * _GAP)
    if position + size > TASK_SIZE:
        raise RestoreError("vdso", "no room for it")
    return position


def _redirect(skeleton: Skeleton, here: Sequence[Region], wanted: Sequence[Region], content: bytes | None) -> None:
    if content is None:
        raise RestoreError("vdso", "this kernel's is another one, and the image does not hold the old one")
    current = _current(skeleton, here)
    old = next(region for region in wanted if region.name == _VDSO)
    for thread in skeleton.process.threads:
        if old.start <= thread.registers.get("rip", 0) < old.end:
            raise RestoreError(f"thread {thread.tid}", "it was inside the vdso, and this kernel's is another one")
    patched = bytearray(content)
    if current is not None:
        base = _room(skeleton, here[-1].end - here[0].start)
        _shift(skeleton, here, 0, base - here[0].start)
        moved = base + next(region for region in here if region.name == _VDSO).start - here[0].start
        functions = symbols(current)
        for name, offset in symbols(content).items():
            if name in functions and offset + 12 <= len(patched):
                # mov rax, address; jmp rax
                patched[offset : offset + 12] = b"\x48\xb8" + struct.pack("<Q", moved + functions[name]) + b"\xff\xe0"
            else:
                raise RestoreError("vdso", f"this kernel's has no {name}")
    flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED_NOREPLACE
    protection = mman.PROT_READ | mman.PROT_EXEC
    skeleton.main.all([(NR["mmap"], (old.start, len(patched), protection, flags, WORD - 1, 0))], "vdso")
    os.pwrite(skeleton.memory, patched, old.start)


def symbols(elf: bytes) -> dict[str, int]:
    """Functions of a vdso: name and offset of each. Raises RestoreError when it is none."""
    try:
        return _symbols(elf)
    except (struct.error, ValueError, IndexError):
        raise RestoreError("vdso", "the image's is damaged") from None


def _symbols(elf: bytes) -> dict[str, int]:
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    base, dynamic = 0, None
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", elf, table + index * size)
        if kind == _PT_LOAD:
            base = address - offset
        elif kind == _PT_DYNAMIC:
            dynamic = offset, length
    if dynamic is None:
        raise ValueError("no dynamic section")
    entries = dict(struct.iter_unpack("<QQ", elf[dynamic[0] : dynamic[0] + dynamic[1] // 16 * 16]))
    strings, table = entries[_DT_STRTAB] - base, entries[_DT_SYMTAB] - base
    found = {}
    # The string table follows the symbol table in every vdso.
    for at in range(table, min(strings, len(elf)) - _SYMBOL.size + 1, _SYMBOL.size):
        name, info, _, section, value, _ = _SYMBOL.unpack_from(elf, at)
        if section and info & 0xF == 2:
            end = elf.index(b"\0", strings + name)
            found[elf[strings + name : end].decode("ascii")] = value - base
    return found
