"""What this kernel can do, found by asking it and not by its version: distributions backport, configurations differ, and containers
forbid.

Each feature can be switched off for a test, or to get around a kernel's bug: VCSIMG_DISABLE=pagemap_scan,uffd_wp_async. What is
switched off counts as not available; the modules of this package still work.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from vcsimg.kernel import calls, pagemap, pidfd, userfaultfd, vmio

ENVIRONMENT = "VCSIMG_DISABLE"

_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True)
class Feature:
    """`explanation`: what it is good for, or why it is missing. `remedy`: what would bring it, if anything would."""

    name: str
    available: bool
    explanation: str
    remedy: str | None = None


@dataclass(frozen=True)
class _Probe:
    purpose: str
    remedy: str | None
    ask: Callable[[], str | None]
    """None if the kernel can, else the reason why not."""
    needs: tuple[str, ...] = ()


def available(name: str) -> bool:
    """Whether a feature is there and not switched off. Raises KeyError for an unknown name."""
    return feature(name).available


def feature(name: str) -> Feature:
    """One feature. Raises KeyError for an unknown name."""
    probe = _PROBES[name]
    if name in _disabled():
        return Feature(name, False, f"{probe.purpose}: switched off by {ENVIRONMENT}", f"Take {name} out of {ENVIRONMENT}.")
    for other in probe.needs:
        needed = feature(other)
        if not needed.available:
            return Feature(name, False, f"{probe.purpose}: needs {other}", needed.remedy)
    reason = _reason(name)
    if reason is None:
        return Feature(name, True, probe.purpose)
    return Feature(name, False, f"{probe.purpose}: {reason}", probe.remedy)


def all_features() -> list[Feature]:
    """Every feature that vcsimg asks for."""
    return [feature(name) for name in _PROBES]


def unknown_disabled() -> set[str]:
    """Names in VCSIMG_DISABLE that are no feature."""
    return _disabled() - set(_PROBES)


def _disabled() -> set[str]:
    return {name for name in os.environ.get(ENVIRONMENT, "").replace(",", " ").split() if name}


@cache
def _reason(name: str) -> str | None:
    try:
        return _PROBES[name].ask()
    except OSError as error:
        return error.strerror


def _ask_pagemap_scan() -> str | None:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pagemap.scan(fd, 0x10000, 0x11000, anyof=pagemap.PRESENT, returned=pagemap.PRESENT)
    except OSError as error:
        return f"/proc/PID/pagemap does not know the request ({error.strerror}): Linux 6.7 has it"
    finally:
        os.close(fd)
    return None


def _ask_userfaultfd() -> str | None:
    os.close(userfaultfd.create())
    return None


def _ask_uffd_wp_async() -> str | None:
    """Register a page of our own, write to it and look."""
    fd = userfaultfd.create()
    pages = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        try:
            userfaultfd.enable(fd)
        except OSError as error:
            return f"userfaultfd lacks asynchronous write-protection ({error.strerror}): Linux 6.7 has it"
        memory[0] = 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        end = start + mmap.PAGESIZE
        userfaultfd.register_wp(fd, start, end)
        pagemap.scan_written(pages, start, end)
        untouched = len(pagemap.scan_written(pages, start, end))
        memory[0] = 2
        touched = len(pagemap.scan_written(pages, start, end))
        return None if (untouched, touched) == (0, 1) else "it does not report exactly the pages that were written"
    finally:
        os.close(fd)
        os.close(pages)


def _ask_exclusive_bit() -> str | None:
    """Whether an ordinary pagemap entry says that a page is mapped by this process alone."""
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory[0] = 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        entry = pagemap.read(fd, start, start + mmap.PAGESIZE)[0]
    finally:
        os.close(fd)
    return None if entry & np.uint64(pagemap.PM_MMAP_EXCLUSIVE) else "the kernel does not set the bit"


def _ask_soft_dirty() -> str | None:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory[0] = 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        entry = pagemap.read(fd, start, start + mmap.PAGESIZE)[0]
    finally:
        os.close(fd)
    return None if entry & np.uint64(pagemap.PM_SOFT_DIRTY) else "the kernel was built without CONFIG_MEM_SOFT_DIRTY"


def _ask_process_vm() -> str | None:
    target = ctypes.create_string_buffer(b"there", 5)
    here = ctypes.create_string_buffer(5)

    def vector(buffer: ctypes.Array[ctypes.c_char]) -> ctypes.Array[ctypes.c_size_t]:
        return (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 5)

    local, remote = vector(here), vector(target)
    vmio.process_vm_readv(os.getpid(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1)
    return None if here.raw == target.raw else "it returned other bytes"


def _ask_pidfd_getfd() -> str | None:
    own = os.pidfd_open(os.getpid())
    try:
        os.close(pidfd.getfd(own, own))
    finally:
        os.close(own)
    return None


def _ask_proc_children() -> str | None:
    present = Path(f"/proc/self/task/{os.getpid()}/children").exists()
    return None if present else "the kernel was built without CONFIG_PROC_CHILDREN"


def _ask_aside() -> str | None:
    return None if calls.loop() is not None else "memory of vcsimg cannot be made executable"


def _ask_ptrace_scope() -> str | None:
    scope = _sysctl("kernel/yama/ptrace_scope")
    return f"kernel.yama.ptrace_scope is {scope}" if scope not in (None, "0") else None


def _ask_user_namespaces() -> str | None:
    if _sysctl("user/max_user_namespaces") in (None, "0"):
        return "user.max_user_namespaces is 0, or the kernel was built without CONFIG_USER_NS"
    if os.geteuid() != 0 and _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "kernel.unprivileged_userns_clone is 0"
    if os.geteuid() != 0 and _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "kernel.apparmor_restrict_unprivileged_userns is 1"
    return None


def _sysctl(name: str) -> str | None:
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return None


_NEWER = "Linux 6.7 or newer has it; without it, captures compare contents or use copy-on-write."

_PROBES: dict[str, _Probe] = {
    "ptrace_any": _Probe(
        "hold any process of the same user, not only those that vcsimg started",
        "`sysctl kernel.yama.ptrace_scope=0` as root; or start programs with `vcsimg run`.",
        _ask_ptrace_scope,
    ),
    "pagemap_scan": _Probe("list a process's populated pages without looking at each", _NEWER, _ask_pagemap_scan),
    "userfaultfd": _Probe(
        "write-protect a process's pages as an ordinary user",
        "A kernel with CONFIG_USERFAULTFD; in a container, a seccomp profile that allows userfaultfd.",
        _ask_userfaultfd,
    ),
    "uffd_wp_async": _Probe(
        "find written pages without stopping the writer", _NEWER, _ask_uffd_wp_async, ("userfaultfd", "pagemap_scan")
    ),
    "exclusive_bit": _Probe("find pages that changed since a copy-on-write fork", None, _ask_exclusive_bit),
    "aside": _Probe("scan for written pages on a second processor while the first reads the rest", None, _ask_aside),
    "soft_dirty": _Probe("find written pages through /proc/PID/clear_refs", None, _ask_soft_dirty),
    "process_vm": _Probe(
        "copy another process's memory in one system call",
        "A kernel with CONFIG_CROSS_MEMORY_ATTACH; in a container, a seccomp profile that allows process_vm_readv.",
        _ask_process_vm,
    ),
    "pidfd_getfd": _Probe(
        "look at another process's open files",
        "Linux 5.6 or newer; in a container, a seccomp profile that allows pidfd_getfd.",
        _ask_pidfd_getfd,
    ),
    "proc_children": _Probe("list a process's children without searching all processes", None, _ask_proc_children),
    "user_namespaces": _Probe(
        "restore a process with its own pids as an ordinary user",
        "`sysctl user.max_user_namespaces=10000` as root, or what the reason names; or restore with --host-pids.",
        _ask_user_namespaces,
    ),
}
