"""mmap(2), madvise(2), mlock2(2), get_mempolicy(2): numbers of x86-64 (asm-generic/mman-common.h, linux/mman.h, linux/mempolicy.h)."""

from __future__ import annotations

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4

MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_DROPPABLE = 0x08
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x0100
MAP_NORESERVE = 0x4000
MAP_STACK = 0x20000
MAP_HUGETLB = 0x40000
MAP_FIXED_NOREPLACE = 0x100000

MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2

MLOCK_ONFAULT = 1
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4

MPOL_DEFAULT = 0
MPOL_F_ADDR = 2

MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_DONTFORK = 10
MADV_MERGEABLE = 12
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_WIPEONFORK = 18
MADV_COLD = 20
MADV_GUARD_INSTALL = 102


def protection(perms: str) -> int:
    """PROT_* of mmap(2) for the permissions of a region, such as r-xp."""
    return sum(bit for bit, letter in ((PROT_READ, "r"), (PROT_WRITE, "w"), (PROT_EXEC, "x")) if letter in perms[:3])
