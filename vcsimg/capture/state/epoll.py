"""What epoll descriptors watch. fdinfo lists it; which open file a watch is on, kcmp(2) knows."""

from __future__ import annotations

import itertools
import re
import select
from contextlib import suppress

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import EpollPolling, EpollQuiet, EpollWatch
from vcsimg.kernel import epoll, kcmp
from vcsimg.kernel.statx import decode_device

_WATCH = re.compile(rb"tfd: +(\d+) events: +([0-9a-f]+) data: +([0-9a-f]+)(?: +pos:(-?\d+) ino:([0-9a-f]+) sdev:([0-9a-f]+))?")
"""fs/eventpoll.c, ep_show_fdinfo; the file's place since Linux 4.18."""


class EpollProbe:
    """Reads the watches."""

    def __init__(self) -> None:
        self._current: dict[tuple[int, int, int], int | None] = {}
        """Which descriptor is watched now: by epoll descriptor, target, and how many watches for that target came before."""

        self._quiet: set[int] = set()
        self._polling: dict[int, tuple[int, int, bool]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "eventpoll"

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        with suppress(OSError):  # before Linux 6.9
            if any(parameters := epoll.polling(own)):
                self._polling[descriptor.fd] = parameters
        poll = select.poll()
        poll.register(own, select.POLLIN)
        if not poll.poll(0):
            self._quiet.add(descriptor.fd)
        before: dict[int, int] = {}
        for found in _WATCH.finditer(descriptor.info):
            target = int(found[1])
            offset = before[target] = before.get(target, -1) + 1
            self._current[descriptor.fd, target, offset] = self._find(descriptor.fd, target, offset, found, table)

    def _find(self, epoll: int, target: int, offset: int, found: re.Match[bytes], table: Table) -> int | None:
        """The descriptor that refers to the watched file: nearly always `target`, as long as it is still open.

        The inode tells, where it belongs to one open file only, as with a socket; where many have the same one, kcmp does.
        """
        inode = int(found[5], 16) if found[5] else None
        known = table.descriptors
        for fd in itertools.chain((target,), known):
            if fd not in known or (inode is not None and known[fd].where.inode != inode):
                continue
            if known[fd].type == "socket" or _watches(table.tid, epoll, target, offset, fd):
                return fd
        return None

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        if descriptor.fd in self._polling:
            report.add("files", EpollPolling(descriptor.fd, *self._polling.pop(descriptor.fd)))
        if descriptor.fd in self._quiet:
            self._quiet.discard(descriptor.fd)
            if b"tfd:" in descriptor.info:
                report.add("files", EpollQuiet(descriptor.fd))
        before: dict[int, int] = {}
        for found in _WATCH.finditer(descriptor.info):
            target = int(found[1])
            offset = before[target] = before.get(target, -1) + 1
            current = self._current.pop((descriptor.fd, target, offset))
            report.add(
                "files",
                EpollWatch(
                    fd=descriptor.fd,
                    target=target,
                    current=current,
                    events=int(found[2], 16),
                    data=int(found[3], 16),
                    device=decode_device(int(found[6], 16)) if found[6] else None,
                    inode=int(found[5], 16) if found[5] else None,
                ),
            )
            if current is None:
                report.unsaved(
                    f"fd {descriptor.fd}", f"it watches what was descriptor {target}, and no descriptor refers to that any more"
                )


def _watches(tid: int, epoll: int, target: int, offset: int, fd: int) -> bool:
    try:
        return kcmp.watches(tid, epoll, target, offset, fd)
    except OSError:
        return fd == target  # without kcmp: the number is most likely still in use for the same file
