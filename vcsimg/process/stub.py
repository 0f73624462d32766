"""Code that a borrowed thread runs: many system calls in a row, and the way home when its tracer is gone.

    0    loop    rbx: table of calls (number and six arguments, 56 bytes each), rbp: results (8 bytes each), r12: how many,
                 r13, r14: its own process and thread id, r15: a signal that has no effect on the process
    128  home    unmaps the page that it stands in, and leaves

The loop ends by sending the thread that signal. The tracer sees the thread stop for it. Without a tracer it has no effect, and the thread
goes on to the address on top of its stack.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import CALL_LOOP, R12, R13, R14, R15, RBP, RBX, WORD

LOOP = 0
HOME = 128

CALL = struct.Struct("<7Q")
RESULT = struct.Struct("<q")

COUNT, RESULTS, TABLE, PROCESS, THREAD, SIGNAL = R12, RBP, RBX, R13, R14, R15
"""Registers of the loop."""

_PADDING = [(0,) * (6 - used) for used in range(7)]

_LOOP = CALL_LOOP + bytes.fromhex(
    "b8ea000000"  # mov eax, 234 (tgkill)
    "4c89ef"  # mov rdi, r13
    "4c89f6"  # mov rsi, r14
    "4c89fa"  # mov rdx, r15
    "0f05"  # syscall
    "c3"  # ret
)


def table(calls: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """The table of calls for the loop."""
    words: list[int] = []
    for number, args in calls:
        words += (number, *args, *_PADDING[len(args)])
    try:
        return struct.pack(f"<{len(words)}Q", *words)
    except struct.error:  # a negative argument
        return struct.pack(f"<{len(words)}Q", *(word % WORD for word in words))


def code(start: int, size: int, call: int) -> bytes:
    """The code, to be placed at `start` in a mapping of `size` bytes; `call`: where a `syscall; ret` is, outside of the mapping."""
    home = (
        b"\x48\xbf" + struct.pack("<Q", start)  # mov rdi, start
        + b"\x48\xbe" + struct.pack("<Q", size)  # mov rsi, size
        + b"\xb8" + struct.pack("<I", NR["munmap"])  # mov eax, 11
        + b"\x49\xbb" + struct.pack("<Q", call)  # mov r11, call
        + b"\x41\xff\xe3"  # jmp r11
    )  # fmt: skip
    return _LOOP.ljust(HOME, b"\xcc") + home
