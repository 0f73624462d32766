"""Sections `files` and `locks`: every descriptor, whatever it refers to.

What lies behind a descriptor (queued data, options, …) is read by probes, one module a kind. A probe gets a descriptor of
our own for the same open file (pidfd_getfd(2)), made after the process stopped and closed before it goes on: while we
hold one, its last close by the process would not reach the other side.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Protocol, runtime_checkable

from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.network import Network
from vcsimg.capture.state.paths import resolve
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import Duplicate, File
from vcsimg.kernel import kcmp, pidfd, statx

O_CLOEXEC = 0o2000000
O_PATH = 0o10000000
O_ACCMODE = 3

_ANONYMOUS = "anon_inode:"
_MEMORY_FILE = "/memfd:"
_AT_ONCE = 256
_SHARE = 4
"""Descriptors of ours that are open at once, and what part they may be of all that there may be."""


@dataclass(slots=True)
class Descriptor:
    """One descriptor, as read while the process is stopped.

    `text`: its link; `raw`: struct statx; `info`: its fdinfo; `type`: what it refers to (type_of); `same`: the lowest descriptor of the
    same open file.
    """

    fd: int
    text: str
    raw: bytes
    info: bytes
    flags: int
    type: str
    same: int = -1
    _where: statx.Statx | None = field(default=None, repr=False)

    @property
    def where(self) -> statx.Statx:
        """struct statx, parsed once."""
        if self._where is None:
            self._where = statx.parse(self.raw)
        return self._where

    def lines(self) -> Iterator[tuple[str, str]]:
        """Lines of fdinfo: name, value."""
        for line in self.info.decode("utf-8", "surrogateescape").splitlines():
            name, _, value = line.partition(":")
            yield name, value.strip()

    def values(self) -> dict[str, str]:
        """Lines of fdinfo by name; the last of those that repeat."""
        return dict(self.lines())


def type_of(text: str, mode: int) -> str:
    """What a link in /proc/PID/fd leads to: regular, directory, character, block, symlink, fifo, pipe, socket, memfd, namespace, or
    the kernel's own word for an anonymous inode (eventfd, eventpoll, inotify, timerfd, signalfd, pidfd, io_uring, …)."""
    if text.startswith(_ANONYMOUS):
        return text.removeprefix(_ANONYMOUS).strip("[]")
    if text.startswith(_MEMORY_FILE):
        return "memfd"
    kind = mode & 0o170000
    if kind == 0o010000:
        return "pipe" if text.startswith("pipe:[") else "fifo"
    names = {0o140000: "socket", 0o120000: "symlink", 0o060000: "block", 0o040000: "directory", 0o020000: "character"}
    if kind in names:
        return names[kind]
    if not text.startswith("/") and text.endswith("]"):
        return "namespace"
    return "regular"


@dataclass(frozen=True, slots=True)
class Table:
    """All descriptors of a process by number, ascending; `tid`: a thread that has them; `network`: its network namespace."""

    tid: int
    network: Network
    descriptors: Mapping[int, Descriptor]


class Probe(Protocol):
    """Reads what lies behind descriptors of one kind, and puts it into words."""

    def wants(self, descriptor: Descriptor) -> bool:
        """Whether the descriptor is of its kind. Called while the process is stopped."""

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        """While the process is stopped. Raises OSError.

        `own`: a descriptor of ours for the same open file, closed by the caller; `table`: all descriptors of the process.
        """

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        """Write what it has read of this descriptor; called for each one that it wanted and could read."""


@runtime_checkable
class Gatherer(Probe, Protocol):
    """A probe that asks many descriptors in one step."""

    def read_together(self, descriptors: Sequence[tuple[Descriptor, int]], table: Table) -> None:
        """While the process is stopped, before read() of each of these: descriptors, with those of ours."""


Description = Callable[[Descriptor, Report], None]
"""Puts into words what fdinfo says of a descriptor of one kind; does nothing for the others."""


class DescriptorsReader:
    """Reads the descriptors of one process."""

    def __init__(self, probes: Sequence[Probe], descriptions: Sequence[Description]) -> None:
        self._probes = probes
        self._gatherers = [probe for probe in probes if isinstance(probe, Gatherer)]
        self._descriptions = descriptions

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        network = Network(moment.held, moment.pidfd, moment.network)
        self._table = Table(moment.tid, network, {descriptor.fd: descriptor for descriptor in self.look(moment.proc)})
        self._find_duplicates()
        self._probed: dict[int, list[Probe]] = {}
        self._unread: list[tuple[Descriptor, OSError]] = []
        wanted = [(descriptor, self._wanted(descriptor)) for descriptor in self._table.descriptors.values()]
        wanted = [(descriptor, probes) for descriptor, probes in wanted if probes]
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        at_once = _AT_ONCE if limit == resource.RLIM_INFINITY else max(1, min(_AT_ONCE, limit // _SHARE))
        for first in range(0, len(wanted), at_once):
            self._probe(moment.pidfd, wanted[first : first + at_once])

    @property
    def descriptors(self) -> Iterable[Descriptor]:
        """As last read."""
        return self._table.descriptors.values()

    @staticmethod
    def look(proc: ProcDirectory) -> Iterator[Descriptor]:
        """The descriptors, as /proc has them."""
        fds, infos = proc.directory("fd"), proc.directory("fdinfo")
        for fd in sorted(map(int, fds.names())):
            name = str(fd)
            info = infos.read_at_once(name)
            text, raw = fds.link(name), fds.statx_raw(name)
            yield Descriptor(fd, text, raw, info, _flags(info), type_of(text, statx.mode_of(raw)))

    def _find_duplicates(self) -> None:
        """Descriptors of one open file look alike; whether those that look alike are one, kcmp(2) tells, where there is one."""
        alike: dict[tuple[str, int, bytes], list[Descriptor]] = {}
        for descriptor in self._table.descriptors.values():
            descriptor.same = descriptor.fd
            position = descriptor.info.partition(b"\n")[0]
            alike.setdefault((descriptor.text, descriptor.flags & ~O_CLOEXEC, position), []).append(descriptor)
        for group in alike.values():
            if len(group) > 1:
                self._join(group)

    def _join(self, group: list[Descriptor]) -> None:
        try:
            fds = sorted((descriptor.fd for descriptor in group), key=cmp_to_key(self._order))
            first = fds[0]
            same = {first: [first]}
            for fd in fds[1:]:
                if self._order(first, fd) == 0:
                    same[first].append(fd)
                else:
                    first = fd
                    same[first] = [fd]
            lowest = {fd: min(members) for members in same.values() for fd in members}
        except OSError:
            # Without kcmp: those that look alike are taken for one. That is what dup(2) makes; two opens of one file by
            # the same path, flags and offset are the rarer case.
            lowest = dict.fromkeys((descriptor.fd for descriptor in group), group[0].fd)
        for descriptor in group:
            descriptor.same = lowest[descriptor.fd]

    def _order(self, one: int, other: int) -> int:
        return kcmp.order(self._table.tid, self._table.tid, kcmp.FILE, one, other)

    def _wanted(self, descriptor: Descriptor) -> list[Probe]:
        """Who reads it."""
        if descriptor.same != descriptor.fd or descriptor.flags & O_PATH:
            return []
        return [probe for probe in self._probes if probe.wants(descriptor)]

    def _probe(self, process: int, wanted: Sequence[tuple[Descriptor, list[Probe]]]) -> None:
        found = list(zip(wanted, pidfd.getfds(process, [descriptor.fd for descriptor, _ in wanted]), strict=True))
        ours = [(descriptor, probes, own) for (descriptor, probes), own in found if not isinstance(own, OSError)]
        failed = [(descriptor, error) for (descriptor, _), error in found if isinstance(error, OSError)]
        too_many = len(wanted) > 1 and any(error.errno in (errno.EMFILE, errno.ENFILE) for _, error in failed)
        try:
            if not too_many:
                self._unread += failed
                for probe in self._gatherers:
                    probe.read_together([(descriptor, own) for descriptor, probes, own in ours if probe in probes], self._table)
                for descriptor, probes, own in ours:
                    self._read(descriptor, probes, own)
        finally:
            for _, _, own in ours:
                os.close(own)
        if too_many:
            for one in wanted:
                self._probe(process, [one])

    def _read(self, descriptor: Descriptor, probes: list[Probe], own: int) -> None:
        try:
            for probe in probes:
                probe.read(descriptor, own, self._table)
            self._probed[descriptor.fd] = probes
        except OSError as error:
            self._unread.append((descriptor, error))

    def finish(self, report: Report) -> None:
        """Write the sections."""
        root = f"/proc/{self._table.tid}/root"
        for descriptor, error in self._unread:
            report.unsaved(f"fd {descriptor.fd}", f"what it holds cannot be read: {error.strerror}")
        for descriptor in self._table.descriptors.values():
            if descriptor.same != descriptor.fd:
                report.add("files", Duplicate(descriptor.fd, descriptor.same, bool(descriptor.flags & O_CLOEXEC)))
                continue
            place = report.count("files")
            for probe in self._probed.get(descriptor.fd, ()):
                probe.describe(descriptor, report)
            for describe in self._descriptions:
                describe(descriptor, report)
            report.insert("files", place, self._file(descriptor, root, report))

    def _file(self, descriptor: Descriptor, root: str, report: Report) -> File:
        where, values = descriptor.where, descriptor.values()
        path, deleted = resolve(descriptor.text, where, root)
        kind = descriptor.type
        regular = kind in ("regular", "memfd")
        return File(
            fd=descriptor.fd,
            close_on_exec=bool(descriptor.flags & O_CLOEXEC),
            type=kind,
            path=path,
            flags=descriptor.flags & ~O_CLOEXEC,
            position=int(values["pos"]),
            mode=where.mode,
            device=where.device,
            inode=where.inode,
            special=where.special if kind in ("character", "block") else None,
            mount=int(values["mnt_id"]) if "mnt_id" in values else None,
            size=where.size if regular else None,
            mtime=where.mtime if regular else None,
            links=where.links if regular or kind == "directory" else None,
            deleted=deleted,
            content=report.content_of(descriptor.fd),
        )


def _flags(info: bytes) -> int:
    start = info.index(b"flags:\t") + 7
    return int(info[start : info.index(b"\n", start)], 8)
