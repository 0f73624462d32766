"""The memory by which a skeleton is driven: a loop that makes system calls from a table, the table, and room for their arguments.

0         loop    rbx: table of calls (number and six arguments, 56 bytes each), rbp: results (8 bytes each), r12: how many;
                  it ends in a breakpoint
4096      table
8 KiB …   results, then room
"""

from __future__ import annotations

from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel.x86_64 import CALL_LOOP, SYSCALL
from vcsimg.process import stub

SIZE = 1 << 20
BATCH = 1024
TABLE = PAGE_SIZE
RESULTS = TABLE + -(-BATCH * stub.CALL.size // PAGE_SIZE) * PAGE_SIZE
ROOM = RESULTS + -(-BATCH * stub.RESULT.size // PAGE_SIZE) * PAGE_SIZE

LOOP = CALL_LOOP + b"\xcc"  # int3
SYSCALL_OFFSET = LOOP.index(SYSCALL)
