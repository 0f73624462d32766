"""Seccomp modes and filters, suspended until the threads are let go (PTRACE_O_SUSPEND_SECCOMP of ptrace(2)): what is left to do may be forbidden."""

from __future__ import annotations

import struct

from vcsimg.errors import RestoreError
from vcsimg.image.sections.item import select
from vcsimg.image.sections.seccomp import SeccompFilter
from vcsimg.image.sections.status import Credentials
from vcsimg.image.snapshot import Thread
from vcsimg.kernel import ptrace, seccomp
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import OPTIONS, words
from vcsimg.restore.skeleton import Skeleton

_LARGEST = 4096
"""BPF_MAXINSNS: instructions of a filter."""
_KEPT = seccomp.FILTER_FLAG_LOG | seccomp.FILTER_FLAG_SPEC_ALLOW


def restore_seccomp(skeleton: Skeleton, thread: Thread, wanted: Credentials) -> None:
    """While the thread has all its rights still. Raises RestoreError."""
    if not wanted.seccomp:
        return
    what = f"thread {thread.tid} seccomp"
    remote = skeleton.threads[thread.tid]
    try:
        ptrace.call(ptrace.PTRACE_SETOPTIONS, remote.tid, 0, OPTIONS | seccomp.PTRACE_O_SUSPEND_SECCOMP)
    except OSError as error:
        raise RestoreError(what, f"it takes CAP_SYS_ADMIN: {error.strerror}") from None
    if wanted.seccomp == seccomp.MODE_STRICT:
        remote.all([(NR["seccomp"], (seccomp.SET_MODE_STRICT, 0, 0))], what)
        return
    own = select(thread.records, SeccompFilter)
    filters = own or select(skeleton.process.section("seccomp"), SeccompFilter)
    if not filters or (wanted.seccomp_filters is not None and len(filters) != wanted.seccomp_filters):
        raise RestoreError(what, "its filters were not captured: that takes CAP_SYS_ADMIN")
    for found in sorted(filters, key=lambda found: found.index):
        count, rest = divmod(len(found.instructions), seccomp.INSTRUCTION_SIZE)
        if rest or not 0 < count <= _LARGEST:
            raise RestoreError(what, f"a filter of {len(found.instructions)} bytes")
        code = remote.put(found.instructions)
        program = remote.put(struct.pack("<Q", count) + words((code,)))
        remote.all([(NR["seccomp"], (seccomp.SET_MODE_FILTER, found.flags & _KEPT, program))], what)
        remote.clear()
