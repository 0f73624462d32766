"""Restartable sequences (rseq(2)): is a thread inside one?

A thread in such a sequence relies on the kernel to send it to the sequence's abort address whenever it was interrupted. The kernel does so
when the thread goes on where it was; when other code runs in it first, the kernel only notes that it has left the sequence.
"""

from __future__ import annotations

import os
import struct

from vcsimg.kernel.ptrace import RseqConfiguration

RSEQ_CS_OFFSET = 8
"""Of the pointer to the current sequence in struct rseq (linux/rseq.h): cpu_id_start, cpu_id, rseq_cs, …"""

RSEQ_CS = struct.Struct("<IIQQQ")
"""struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip"""


def abort_address(memory_fd: int, configuration: RseqConfiguration, instruction: int) -> int | None:
    """Where a thread that stands at `instruction` has to go on; None if it is in no restartable sequence."""
    try:
        sequence = int.from_bytes(os.pread(memory_fd, 8, configuration.rseq_abi_pointer + RSEQ_CS_OFFSET), "little")
        if sequence == 0:
            return None
        content = os.pread(memory_fd, RSEQ_CS.size, sequence)
    except (OSError, OverflowError):
        return None
    if len(content) < RSEQ_CS.size:
        return None
    _, _, start, length, abort = RSEQ_CS.unpack(content)
    return int(abort) if start <= instruction < start + length else None
