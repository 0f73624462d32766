"""Character devices: those without state of their own, and terminals, for which the user's stands in."""

from __future__ import annotations

import os
import stat

from vcsimg.errors import RestoreError
from vcsimg.image.sections.files import File
from vcsimg.image.snapshot import Process
from vcsimg.restore.context import Context
from vcsimg.restore.pipes import standard

_STATELESS = frozenset(("01:03", "01:05", "01:07", "01:08", "01:09"))
"""null, zero, full, random, urandom."""
_TTY = "05:00"
_PTMX = "05:02"
_TERMINALS = frozenset((0x04, 0x05, *range(0x88, 0x90), 0xE5))


def make_character(context: Context, process: Process, file: File) -> int | None:
    """Raises RestoreError, OSError."""
    what = f"process {process.pid} fd {file.fd} (device {file.path})"
    special = file.special or ""
    flags = file.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC) | os.O_NOCTTY | os.O_CLOEXEC
    if special in _STATELESS:
        path = context.root + file.path
        facts = os.stat(path)
        major, minor = (int(part, 16) for part in special.split(":"))
        if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(major, minor):
            raise RestoreError(what, "there is something else at its path now")
        return os.open(path, flags)
    if special == _PTMX:
        raise RestoreError(what, "the master of a pseudo-terminal cannot be restored yet")
    if int(special.partition(":")[0] or "0", 16) in _TERMINALS:
        if standard(process, file):
            return None
        try:
            return os.open("/dev/tty", flags)
        except OSError:
            return os.open(os.devnull, flags)
    raise RestoreError(what, "what the device holds was not captured")
