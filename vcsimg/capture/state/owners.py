"""Who gets SIGIO for a descriptor: F_SETOWN, F_SETOWN_EX and F_SETSIG of fcntl(2)."""

from __future__ import annotations

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import Owner
from vcsimg.kernel import fowner

_O_ASYNC = 0o20000
_KINDS = frozenset(("socket", "directory", "pipe", "fifo"))
_TYPES = {fowner.TID: "tid", fowner.PID: "pid", fowner.PGRP: "pgrp"}


class OwnerProbe:
    """Reads owners of descriptors that can send signals: those with O_ASYNC, or that may get it still; sockets (SIGURG), directories (F_NOTIFY), and files
    with a lease."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int, int]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        kind = descriptor.type
        return bool(descriptor.flags & _O_ASYNC) or kind in _KINDS or (kind == "regular" and b"LEASE" in descriptor.info)

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        kind, identifier = fowner.owner(own)
        signal = fowner.signal(own)
        if identifier or signal:
            self._found[descriptor.fd] = (kind, identifier, signal)

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        kind, identifier, signal = self._found.pop(descriptor.fd, (0, 0, 0))
        if identifier and descriptor.type == "directory":
            # F_NOTIFY sets it (fs/notify/dnotify/dnotify.c, fcntl_dirnotify); nothing tells of what.
            report.unsaved(f"fd {descriptor.fd}", "that it is told of changes in the directory (F_NOTIFY) cannot be copied")
        elif identifier or signal:
            report.add("files", Owner(descriptor.fd, _TYPES[kind], identifier, signal))
