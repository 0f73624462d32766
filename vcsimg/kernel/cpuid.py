"""CPUID and XGETBV, by a few bytes of code: Python has no call for them. Intel SDM volume 2A; volume 1, chapter 13."""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass

# void cpuid(uint32_t leaf [edi], uint32_t subleaf [esi], uint32_t out[4] [rdx])
_CPUID = bytes.fromhex(
    "53"  # push rbx
    "4989d0"  # mov r8, rdx
    "89f8"  # mov eax, edi
    "89f1"  # mov ecx, esi
    "0fa2"  # cpuid
    "418900"  # mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5b"  # pop rbx
    "c3"  # ret
)
# uint64_t xgetbv(void): XCR0
_XGETBV = bytes.fromhex("31c90f01d048c1e2204809d0c3")  # xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; ret
_XSAVE_LEAF = 0xD
_OSXSAVE = 1 << 27
_FIRST_EXTENDED, _LAST = 2, 62


@dataclass(frozen=True, slots=True)
class XsaveLayout:
    """`features`: XCR0; `size`: bytes of an area in the standard format with all of them; `components`: number, offset and size of each
    beyond the legacy area."""

    features: int
    size: int
    components: tuple[tuple[int, int, int], ...]


def xsave_layout() -> XsaveLayout | None:
    """The layout that this CPU uses; None without XSAVE, or where the system forbids memory that is writable and executable."""
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(_CPUID.ljust(64, b"\x90") + _XGETBV)
    view = ctypes.c_char.from_buffer(code)
    try:
        return _read(ctypes.addressof(view))
    finally:
        del view
        code.close()


def _read(address: int) -> XsaveLayout | None:
    run = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(address)
    xgetbv = ctypes.CFUNCTYPE(ctypes.c_uint64)(address + 64)
    out = ctypes.create_string_buffer(16)

    def cpuid(leaf: int, subleaf: int) -> tuple[int, ...]:
        run(leaf, subleaf, ctypes.addressof(out))
        return struct.unpack("<IIII", out.raw)

    if not cpuid(1, 0)[2] & _OSXSAVE:
        return None
    features = int(xgetbv())
    components = []
    for number in range(_FIRST_EXTENDED, _LAST + 1):
        if features >> number & 1:
            size, offset, _, _ = cpuid(_XSAVE_LEAF, number)
            components.append((number, offset, size))
    return XsaveLayout(features, cpuid(_XSAVE_LEAF, 0)[1], tuple(components))
