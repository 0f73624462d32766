"""Records of a thread, beside its registers."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item
from vcsimg.image.sections.names import AltstackFlags, Policy, Restart, SchedulingFlags, SignalNumber


@dataclass(frozen=True, slots=True)
class Name(Item, kind="name"):
    """The name that prctl(PR_SET_NAME) gave it."""

    comm: str


@dataclass(frozen=True, slots=True)
class NamespaceTids(Item, kind="ids"):
    """Its id in each nested pid namespace, outermost first; absent outside of them."""

    namespace_tids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SignalMask(Item, kind="signals"):
    """Blocked signals: bit n - 1 stands for signal n."""

    mask: Hex


@dataclass(frozen=True, slots=True)
class Pending(Item, kind="pending"):
    """A signal that waits, in the order of the queue. In section `signals`: for the process; in a thread: for this thread.

    `info`: siginfo_t, 128 bytes; absent when the kernel had no memory for one, or when it could not be read.
    """

    signal: SignalNumber
    code: int | None
    info: bytes | None


@dataclass(frozen=True, slots=True)
class Dequeued(Item, kind="dequeued"):
    """A signal that was already out of the queue, about to be delivered."""

    signal: SignalNumber
    code: int
    info: bytes


@dataclass(frozen=True, slots=True)
class Altstack(Item, kind="altstack"):
    """sigaltstack(2)."""

    address: Hex
    size: int
    flags: AltstackFlags


@dataclass(frozen=True, slots=True)
class TidAddress(Item, kind="tid_address"):
    """Where the kernel writes 0 when the thread ends: set_tid_address(2)."""

    address: Hex


@dataclass(frozen=True, slots=True)
class RobustList(Item, kind="robust_list"):
    """get_robust_list(2)."""

    head: Hex
    length: int


@dataclass(frozen=True, slots=True)
class Rseq(Item, kind="rseq"):
    """The registered restartable-sequence area: rseq(2). Absent when none is registered."""

    address: Hex
    size: int
    signature: Hex
    flags: Hex


@dataclass(frozen=True, slots=True)
class Scheduling(Item, kind="scheduling"):
    """sched_getattr(2), sched_getaffinity(2), ioprio_get(2).

    Runtime, deadline and period in nanoseconds, for SCHED_DEADLINE (runtime else: the slice, if one was set).
    """

    policy: Policy
    flags: SchedulingFlags
    nice: int
    priority: int
    runtime: int | None
    deadline: int | None
    period: int | None
    util_min: int | None
    util_max: int | None
    affinity: str
    io_priority: Hex | None


@dataclass(frozen=True, slots=True)
class ThreadSettings(Item, kind="settings"):
    """Timer slack in nanoseconds; the signal that it gets when its parent ends (0: none). `tsc` 2: RDTSC raises SIGSEGV; `no_cpuid`: so does
    CPUID."""

    timer_slack: int | None
    parent_death_signal: SignalNumber | None
    tsc: int | None = None
    no_cpuid: bool | None = None


@dataclass(frozen=True, slots=True)
class MemoryPolicy(Item, kind="memory_policy"):
    """set_mempolicy(2): MPOL_* with its flags, and the NUMA nodes as bits; when it is not the default."""

    mode: Hex
    nodes: Hex


@dataclass(frozen=True, slots=True)
class Call(Item, kind="syscall"):
    """The system call that the stop interrupted and that starts again when the thread goes on.

    `error`: how the kernel restarts it. 219 (restart_syscall) continues an earlier call: `original`, when it is known.
    `began`, of a call with a timeout that counts from its begin: when that was, in nanoseconds of CLOCK_MONOTONIC, when it is known.
    """

    number: int
    original: int | None
    error: Restart
    began: int | None


@dataclass(frozen=True, slots=True)
class UserDispatch(Item, kind="user_dispatch"):
    """prctl(PR_SET_SYSCALL_USER_DISPATCH), when it is on."""

    mode: int
    selector: Hex
    offset: Hex
    length: int
