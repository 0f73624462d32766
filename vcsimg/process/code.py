"""Finding an instruction in a process that makes a system call."""

from __future__ import annotations

import os

from vcsimg.image.region import Region
from vcsimg.kernel.x86_64 import SYSCALL


def find_syscall(memory_fd: int, regions: list[Region]) -> int | None:
    """The address of a `syscall` instruction, or of two bytes that make one; None if no executable mapping has any."""
    executable = [region for region in regions if region.perms[2] == "x" and region.name != "[vsyscall]"]
    # The vdso has one, and is the smallest to search.
    executable.sort(key=lambda region: (region.name != "[vdso]", region.end - region.start))
    for region in executable:
        try:
            content = os.pread(memory_fd, region.end - region.start, region.start)
        except OSError:
            continue
        found = content.find(SYSCALL)
        if found >= 0:
            return region.start + found
    return None
