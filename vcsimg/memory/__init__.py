"""Another process's memory, quicker than ptrace. docs/memory.md is its manual.

    from vcsimg.memory import fast_peekdata, fast_pokedata      # by pid, any length
    from vcsimg.memory import AutoMemory                        # the quickest way for each transfer
    from vcsimg.memory import FastProcess                       # python-ptrace's method names

Every backend is a Memory: SharedMemory, VmMemory, ProcMemory, PtraceMemory, and BytesMemory, which is no process at all.
"""

from __future__ import annotations

from vcsimg.memory.auto import AutoMemory
from vcsimg.memory.compat import FastAccessError, FastProcess, FastProcessGone
from vcsimg.memory.pages import read_pages
from vcsimg.memory.peek import attached, fast_peekdata, fast_pokedata, forget
from vcsimg.memory.plain import BytesMemory
from vcsimg.memory.proc import ProcMemory
from vcsimg.memory.protocol import Buffer, Memory, Ranges, WritableBuffer
from vcsimg.memory.room import Room
from vcsimg.memory.shared import SharedMemory
from vcsimg.memory.vm import VmMemory
from vcsimg.memory.words import PtraceMemory

__all__ = [
    "AutoMemory",
    "Buffer",
    "BytesMemory",
    "FastAccessError",
    "FastProcess",
    "FastProcessGone",
    "Memory",
    "ProcMemory",
    "PtraceMemory",
    "Ranges",
    "Room",
    "SharedMemory",
    "VmMemory",
    "WritableBuffer",
    "attached",
    "fast_peekdata",
    "fast_pokedata",
    "forget",
    "read_pages",
]
