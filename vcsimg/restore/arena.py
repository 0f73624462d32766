"""The memory by which a skeleton is driven: a loop that makes system calls from a table, the table, and room for their arguments.

0         loop    rbx: table of calls (number and six arguments, 56 bytes each), rbp: results (8 bytes each), r12: how many;
                  it ends in a breakpoint
4096      table
8 KiB …   results, then room
"""

from __future__ import annotations

from vcsimg.image.units import PAGE_SIZE
from vcsimg.process import stub

SIZE = 1 << 20
BATCH = 1024
TABLE = PAGE_SIZE
RESULTS = TABLE + -(-BATCH * stub.CALL.size // PAGE_SIZE) * PAGE_SIZE
ROOM = RESULTS + -(-BATCH * stub.RESULT.size // PAGE_SIZE) * PAGE_SIZE

LOOP = bytes.fromhex(
    "488b03"  # loop: mov rax, [rbx]
    "488b7b08"  # mov rdi, [rbx+8]
    "488b7310"  # mov rsi, [rbx+16]
    "488b5318"  # mov rdx, [rbx+24]
    "4c8b5320"  # mov r10, [rbx+32]
    "4c8b4328"  # mov r8, [rbx+40]
    "4c8b4b30"  # mov r9, [rbx+48]
    "0f05"  # syscall
    "48894500"  # mov [rbp], rax
    "4883c338"  # add rbx, 56
    "4883c508"  # add rbp, 8
    "49ffcc"  # dec r12
    "75d2"  # jnz loop
    "cc"  # int3
)
SYSCALL_OFFSET = LOOP.index(b"\x0f\x05")
