"""Instructions in a process that can be borrowed: nothing is written into its code.

    call        syscall; ret                a system call, after which the thread would return to the address on its stack
    restore     mov rax, 15; syscall        rt_sigreturn, by which a signal handler returns: every C library has it

`call` may be a bare `syscall`, where there is no other.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from vcsimg.image.region import Region
from vcsimg.kernel import procfs
from vcsimg.kernel.x86_64 import SYSCALL

_CALL = b"\x0f\x05\xc3"
_RESTORE = re.compile(rb"(?:\x48\xc7\xc0|\xb8)\x0f\x00\x00\x00\x0f\x05", re.DOTALL)
_LARGEST = 64 << 20
_REMEMBERED = 1024


class Code(NamedTuple):
    """`restore` and `restore_bytes` are empty when there is none, or when `call` is not followed by `ret`."""

    call: int
    call_bytes: bytes
    restore: int
    restore_bytes: bytes


_found: dict[int, Code] = {}


def find_code(pid: int, tid: int, memory_fd: int) -> Code | None:
    """Where they are; None if no executable mapping has a system call instruction. Remembered for each
    process, and checked before it is used again. `tid`: any thread of it that has not ended; it must be held."""
    code = _found.get(pid)
    if code is not None and _is_there(memory_fd, code):
        return code
    if len(_found) >= _REMEMBERED:
        _found.clear()
    code = _search(memory_fd, procfs.read_maps(tid))
    if code is not None:
        _found[pid] = code
    return code


def find_code_early(pid: int) -> None:
    """While the process runs: search, which can take 30 ms, so that find_code() need not when it is held."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # whoever holds it will hear why
    try:
        find_code(pid, pid, memory)
    except OSError:
        return
    finally:
        os.close(memory)


def _is_there(memory_fd: int, code: Code) -> bool:
    try:
        return os.pread(memory_fd, len(code.call_bytes), code.call) == code.call_bytes and (
            not code.restore or os.pread(memory_fd, len(code.restore_bytes), code.restore) == code.restore_bytes
        )
    except OSError:
        return False


def _search(memory_fd: int, regions: list[Region]) -> Code | None:
    bare = call = restore = 0
    restore_bytes = b""
    executable = [region for region in regions if region.perms[2] == "x" and region.name != "[vsyscall]"]
    for region in sorted(executable, key=lambda region: region.end - region.start):
        size = region.end - region.start
        if size > _LARGEST:
            break
        try:
            content = os.pread(memory_fd, size, region.start)
        except OSError:
            continue
        at = content.find(SYSCALL)
        if at >= 0 and not bare:
            bare = region.start + at
        at = content.find(_CALL)
        if at >= 0 and not call:
            call = region.start + at
        found = _RESTORE.search(content)
        if found is not None and not restore:
            restore, restore_bytes = region.start + found.start(), found.group()
        if call and restore:
            return Code(call, _CALL, restore, restore_bytes)
    return Code(bare, SYSCALL, 0, b"") if bare else None
