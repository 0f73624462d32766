"""Section `locks`: fdinfo lists the locks that are held through an open file. Format: fs/locks.c, lock_get_status."""

from __future__ import annotations

from vcsimg.capture.state.descriptors import Descriptor
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import Lock

_TYPES = {"FLOCK": "flock", "POSIX": "posix", "OFDLCK": "ofd", "LEASE": "lease", "DELEG": "delegation"}


def describe_locks(descriptor: Descriptor, report: Report) -> None:
    """`1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF`: type, kind, access, pid, file, first byte, last byte."""
    for name, value in descriptor.lines():
        if name == "lock":
            _, kind, _, access, _, _, start, last = value.split()
            end = None if last == "EOF" else int(last) + 1
            report.add("locks", Lock(descriptor.fd, _TYPES[kind], access.lower(), int(start), end))
