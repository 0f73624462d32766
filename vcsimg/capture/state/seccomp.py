"""Seccomp filters, which only a tracer with CAP_SYS_ADMIN may read."""

from __future__ import annotations

import errno

from vcsimg.capture.state.report import Report
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.seccomp import SeccompFilter
from vcsimg.kernel import seccomp

FILTERED = b"\nSeccomp:\t2\n"
"""In the status file of a thread under a filter."""


class SeccompReader:
    """Reads the filters of the threads of one process. Filters are only ever added, so the same number of them is the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], list[Item] | OSError] = {}

    def read(self, tid: int, status: bytes) -> None:
        """While it is stopped; `status`: content of the thread's status file, which tells the number of filters."""
        key = (tid, _count(status))
        if key in self._known and key[1]:
            return
        try:
            self._known[key] = [SeccompFilter(index, flags, code) for index, (flags, code) in enumerate(seccomp.filters(tid))]
        except OSError as error:
            self._known[key] = error

    def items(self, tid: int, status: bytes, report: Report) -> list[Item]:
        """Records of the thread's filters; notes what could not be read."""
        found = self._known.get((tid, _count(status)), []) if FILTERED in status else []
        if isinstance(found, OSError):
            reason = "reading them needs CAP_SYS_ADMIN" if found.errno in (errno.EACCES, errno.EPERM) else str(found.strerror)
            report.unsaved("seccomp filters", reason)
            return []
        return found


def _count(status: bytes) -> bytes:
    """Seccomp_filters (since Linux 5.9), else nothing."""
    _, found, rest = status.partition(b"\nSeccomp_filters:\t")
    return rest.partition(b"\n")[0] if found else b""
