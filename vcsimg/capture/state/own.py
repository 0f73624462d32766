"""What only a thread itself can tell."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.kernel import prctl
from vcsimg.kernel.syscalls import NR

STACK = struct.Struct("<QixxxxQ")
"""stack_t: address, flags, size."""


POLICY = struct.Struct("<i")
NODES = 1024
"""At least as many as the kernel may have (CONFIG_NODES_SHIFT)."""


@dataclass(slots=True)
class Own:
    """What only the thread itself can tell, by system calls that it makes for us."""

    stack: Buffer
    sigaltstack: Call
    tid: Buffer
    tid_address: Call
    timer_slack: Call
    death: Buffer
    death_signal: Call
    policy: Buffer
    memory_policy: Call
    nodes: Buffer
    tsc: Buffer
    time_stamps: Call
    cpuid: Call
    securebits: Call

    @property
    def answered(self) -> bool:
        """Whether the thread was asked."""
        return self.sigaltstack.result is not None

    @classmethod
    def ask(cls, ask: Borrowings) -> Own:
        """Note the questions."""
        stack, tid, death = ask.buffer(STACK.size), ask.buffer(8), ask.buffer(4)
        policy, nodes, tsc = ask.buffer(POLICY.size), ask.buffer(NODES // 8), ask.buffer(4)
        return cls(
            stack,
            ask.call(NR["sigaltstack"], 0, stack),
            tid,
            ask.call(NR["prctl"], prctl.GET_TID_ADDRESS, tid, 0, 0, 0),
            ask.call(NR["prctl"], prctl.GET_TIMERSLACK, 0, 0, 0, 0),
            death,
            ask.call(NR["prctl"], prctl.GET_PDEATHSIG, death, 0, 0, 0),
            policy,
            ask.call(NR["get_mempolicy"], policy, nodes, NODES, 0, 0),
            nodes,
            tsc,
            ask.call(NR["prctl"], prctl.GET_TSC, tsc, 0, 0, 0),
            ask.call(NR["arch_prctl"], prctl.ARCH_GET_CPUID, 0),
            ask.call(NR["prctl"], prctl.GET_SECUREBITS, 0, 0, 0, 0),
        )
