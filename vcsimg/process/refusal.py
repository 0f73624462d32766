"""Why a process may not be held: turning the kernel's one EPERM into the reason."""

from __future__ import annotations

import os
from pathlib import Path

from vcsimg.errors import AlreadyTraced, NoSuchProcess, NotPermitted, ProcessError, UnsupportedProcess
from vcsimg.kernel import procfs

_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def refusal(pid: int) -> ProcessError:
    """The error that says why PTRACE_SEIZE was refused (ptrace(2), "Ptrace access mode checking")."""
    try:
        status = procfs.status(pid)
        stat = procfs.stat(pid)
        # Of what is not dumpable, root owns all but the directories that everyone may read (fs/proc/base.c, task_dump_owner).
        owner = os.stat(f"/proc/{pid}/environ").st_uid
    except OSError:
        return NoSuchProcess(pid)
    unsupported = unsupported_reason(status, stat)
    if unsupported is not None:
        return UnsupportedProcess(pid, unsupported)
    tracer = int(status.get("TracerPid", "0"))
    if tracer:
        return AlreadyTraced(pid, _process_of(tracer))
    if pid == os.getpid():
        return UnsupportedProcess(pid, "a process cannot hold itself")
    reason, remedy = _permission(status, owner)
    return NotPermitted(pid, reason, remedy=remedy)


def _process_of(tid: int) -> int:
    """The process of a thread: a tracer is a thread, and its user knows the process."""
    try:
        return int(procfs.status(tid)["Tgid"])
    except OSError:
        return tid


def unsupported_reason(status: dict[str, str], stat: procfs.Stat) -> str | None:
    """Why no privilege would help; None if it might."""
    if stat.state in "ZX" and stat.num_threads <= 1:
        return "it has ended, and waits for its parent to collect its exit status (a zombie)"
    if stat.flags & procfs.PF_KTHREAD:
        return "it is a kernel thread: it has no memory of its own"
    return None


def _permission(status: dict[str, str], owner: int) -> tuple[str, str]:
    uids = {int(uid) for uid in status["Uid"].split()[:3]}
    mine = os.getuid()
    privileged = _can_trace_others()
    if uids != {mine} and not privileged:
        owners = ", ".join(map(str, sorted(uids)))
        return f"it belongs to user {owners} and you are user {mine}", "Run vcsimg as that user, or as root."
    if owner not in uids and not privileged:
        return (
            "it is not dumpable: it was started from a setuid or unreadable program, or asked for this (prctl PR_SET_DUMPABLE)",
            "Run vcsimg as root.",
        )
    scope = _YAMA.read_text().strip() if _YAMA.exists() else "0"
    if scope == "3":
        return "kernel.yama.ptrace_scope is 3: nobody may trace any process until the next boot", "Boot with another setting."
    if scope == "2" and not privileged:
        return "kernel.yama.ptrace_scope is 2: only root may trace processes", "Run vcsimg as root."
    if scope == "1" and not privileged:
        return (
            "kernel.yama.ptrace_scope is 1: only its own ancestors may trace a process",
            "Start the program with `vcsimg run`, or run vcsimg as root, or `sysctl kernel.yama.ptrace_scope=0`.",
        )
    return (
        "it has more capabilities than vcsimg, lives in another user namespace (container), or a security module forbids it",
        "Run vcsimg where the process was started: on the host, or inside its container.",
    )


def _can_trace_others() -> bool:
    """Whether this process has CAP_SYS_PTRACE in its own user namespace."""
    return bool(int(procfs.status(os.getpid())["CapEff"], 16) >> 19 & 1)
