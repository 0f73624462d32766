"""Section `status`: what a process is, where it stands, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item, Octal
from vcsimg.image.sections.names import Personality, SeccompMode, SignalNumber


@dataclass(frozen=True, slots=True)
class Identity(Item, kind="process"):
    """Who the process is among the others. `namespace_groups`, `namespace_sessions`: absent outside of nested pid namespaces."""

    pid: int
    parent: int
    group: int
    session: int
    namespace_pids: tuple[int, ...]
    namespace_groups: tuple[int, ...] | None
    namespace_sessions: tuple[int, ...] | None
    start: int
    exit_signal: SignalNumber
    stopped: bool
    umask: Octal


@dataclass(frozen=True, slots=True)
class Command(Item, kind="command"):
    """The program that it runs."""

    name: str
    exe: str | None
    device: str | None
    inode: int | None
    deleted: bool | None


@dataclass(frozen=True, slots=True)
class Directory(Item, kind="directory"):
    """Where its paths begin: role `cwd` or `root`."""

    role: str
    path: str
    device: str | None
    inode: int | None
    mount: int | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class Credentials(Item, kind="credentials"):
    """What a thread may do. In `status` the main thread's; a thread that differs has its own."""

    uid: tuple[int, ...]
    gid: tuple[int, ...]
    groups: tuple[int, ...]
    inheritable: Hex
    permitted: Hex
    effective: Hex
    bounding: Hex
    ambient: Hex
    securebits: Hex | None
    no_new_privs: bool
    seccomp: SeccompMode
    seccomp_filters: int | None


@dataclass(frozen=True, slots=True)
class Security(Item, kind="security"):
    """What others may do with it, and how the kernel treats its calls."""

    dumpable: int | None
    personality: Personality | None
    label: str | None
    loginuid: int | None


@dataclass(frozen=True, slots=True)
class MemoryBounds(Item, kind="memory"):
    """The bounds that PR_SET_MM_MAP sets: addresses, ends exclusive."""

    start_code: Hex
    end_code: Hex
    start_data: Hex
    end_data: Hex
    start_brk: Hex
    brk: Hex | None
    start_stack: Hex
    arg_start: Hex
    arg_end: Hex
    env_start: Hex
    env_end: Hex


@dataclass(frozen=True, slots=True)
class Settings(Item, kind="settings"):
    """What prctl(2) and files of /proc set for the whole process."""

    oom_score_adj: int | None
    coredump_filter: Hex | None
    subreaper: bool | None
    thp_disable: int | None
    memory_merge: bool | None
    mdwe: Hex | None
    tsc: int | None
    mce_kill: int | None
    membarrier: Hex | None = None
    lock_future: bool | None = None
    autogroup_nice: int | None = None
    lock_on_fault: bool | None = None
    futex_slots: int | None = None


@dataclass(frozen=True, slots=True)
class Guard(Item, kind="guard"):
    """Pages [start, end) that must not be touched: madvise(2), MADV_GUARD_INSTALL."""

    start: Hex
    end: Hex


@dataclass(frozen=True, slots=True)
class RegionPolicy(Item, kind="region_policy"):
    """mbind(2) of [start, end): MPOL_* with its flags, and the NUMA nodes as bits; when it is not the default."""

    start: Hex
    end: Hex
    mode: Hex
    nodes: Hex


@dataclass(frozen=True, slots=True)
class SessionKeyring(Item, kind="session_keyring"):
    """keyrings(7): a session keyring with keys in it, which is not that of its user; `keys`: how many, without the user's own keyring."""

    serial: int
    name: str
    keys: int
