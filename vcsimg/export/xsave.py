"""The XSAVE area of a core in the layout that debuggers assume.

CPUID says where each component lies in the uncompacted XSAVE area, and the CPUs differ: AMD's leave out the gap of Intel's MPX.
A core has had no room for that knowledge before Linux 6.12 (NT_X86_XSAVE_LAYOUT), so gdb assumes Intel's offsets or guesses them
from the size (gdb/i387-tdep.c, i387_guess_xsave_layout), and refuses an area shorter than Intel's.

Sources: Intel SDM volume 1, chapter 13; Linux arch/x86/include/uapi/asm/elf.h; gdb/i387-tdep.c.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vcsimg.image.sections.host import XsaveComponent
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Section

LEGACY_SIZE = 512
"""What FXSAVE writes, and what NT_FPREGSET holds."""
_EXTENDED = 576
"""The legacy area and the XSAVE header come before the components."""
_USUAL_OFFSETS = {2: 576, 3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664, 9: 2688, 17: 2752, 18: 2816, 19: 960}
"""AVX, MPX (2), AVX-512 (3), PKRU, AMX (2), APX: the offsets of Intel's CPUs."""
_SIZE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Layout:
    """How the areas of an image become areas of a core: `moves` are (from, to, size); none if they stay as they are."""

    moves: Sequence[tuple[int, int, int]] = ()
    size: int = 0
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of each component in the core."""

    @classmethod
    def of(cls, host: Section) -> Layout:
        """The layout for the machine that the capture was made on; unchanged if the image does not say what it was."""
        components = [part for part in select(host, XsaveComponent) if part.offset + part.size <= _SIZE_LIMIT]
        target: dict[int, tuple[int, int]] = {}
        for part in components:
            behind = max((offset + size for offset, size in target.values()), default=_EXTENDED)
            target[part.number] = (_USUAL_OFFSETS.get(part.number, behind), part.size)
        if all(target[part.number][0] == part.offset for part in components):
            return cls(offsets=target)
        moves = tuple((part.offset, target[part.number][0], part.size) for part in components)
        return cls(moves, max(offset + size for offset, size in target.values()), target)

    def area(self, area: bytes) -> bytes:
        """An area of the image as it stands in the core."""
        if not self.moves:
            return area
        out = bytearray(self.size)
        out[:_EXTENDED] = area[:_EXTENDED].ljust(_EXTENDED, b"\0")
        for old, new, size in self.moves:
            out[new : new + size] = area[old : old + size].ljust(size, b"\0")
        return bytes(out)

    def description(self) -> bytes:
        """The content of NT_X86_XSAVE_LAYOUT: number, size, offset and flags (0) of each component, four bytes each."""
        return b"".join(struct.pack("<4I", number, size, offset, 0) for number, (offset, size) in self.offsets.items())
