"""Character devices: those without state of their own, and terminals."""

from __future__ import annotations

import os
import stat

from vcsimg.errors import RestoreError
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.terminals import Terminal
from vcsimg.image.snapshot import Process
from vcsimg.kernel import pidfd, terminal
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.context import Context
from vcsimg.restore.pipes import standard

_STATELESS = frozenset(("01:03", "01:05", "01:07", "01:08", "01:09"))
"""null, zero, full, random, urandom."""
_CREATION = os.O_CREAT | os.O_EXCL | os.O_TRUNC


def make_character(context: Context, process: Process, file: File) -> int | None:
    """Raises RestoreError, OSError."""
    what = f"process {process.pid} fd {file.fd} (device {file.path})"
    special = file.special or ""
    flags = file.flags & ~_CREATION | os.O_NOCTTY | os.O_CLOEXEC
    if special in _STATELESS:
        path = context.root + file.path
        facts = os.stat(path)
        major, minor = (int(part, 16) for part in special.split(":"))
        if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(major, minor):
            raise RestoreError(what, "there is something else at its path now")
        return os.open(path, flags)
    if special == terminal.PTMX:
        return _master(context, process, file, what)
    if special == terminal.TTY:
        return _controlling(context, process, flags, what)
    pty = context.ptys.made.get(special)
    if pty is None:
        raise RestoreError(what, "what the device holds was not captured")
    fd = context.ptys.open(special, flags, context.root)
    if pty.inside or not standard(process, file):
        return fd
    context.stand_ins[process.pid, file.fd] = context.own(fd)
    return None


def _master(context: Context, process: Process, file: File, what: str) -> int:
    for found in select(process.section("terminals"), Terminal):
        if found.fd == file.fd and found.pty is not None:
            pty = context.ptys.made[terminal.pty_device(found.pty)]
            if pty.number != found.pty:
                context.notes.append(f"{what}: its terminal is {pty.path} now")
            return os.dup(pty.master)
    raise RestoreError(what, "which terminal it is the master of was not captured")


def _controlling(context: Context, process: Process, flags: int, what: str) -> int:
    """/dev/tty: only the process itself can open it."""
    skeleton = context.skeletons[process.pid]
    remote = skeleton.main
    try:
        theirs = remote.call(NR["open"], remote.string("/dev/tty"), flags)
    except OSError as error:
        raise RestoreError(what, f"it has no controlling terminal: {error.strerror}") from None
    descriptor = pidfd.open(skeleton.tid)
    try:
        return pidfd.getfd(descriptor, theirs)
    finally:
        os.close(descriptor)
        remote.call(NR["close"], theirs)
        remote.clear()
