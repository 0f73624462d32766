"""Sections `namespaces` and `cgroup`."""

from __future__ import annotations

import os

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.item import records
from vcsimg.image.sections.places import Cgroup, HostName, IdMap, Namespace, TimeOffset
from vcsimg.image.snapshot import Section
from vcsimg.kernel.syscalls import NR

_WORD = 65
_UTSNAME, _NODE, _DOMAIN = 6 * _WORD, _WORD, 5 * _WORD
"""struct new_utsname."""
_TYPES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts")


class PlacesReader:
    """Reads them for one process."""

    def __init__(self) -> None:
        self._own: dict[str, str | None] = {}
        self._said: tuple[dict[str, str], Section] = ({}, ())

    def ask(self, ask: Borrowings) -> None:
        """Note what only the process itself can tell."""
        self._name = ask.buffer(_UTSNAME)
        self._uname = ask.call(NR["uname"], self._name)

    def prepare(self) -> None:
        """While it runs."""
        self._own = {name: _own(name) for name in _TYPES}

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self.look(moment.proc)

    def look(self, proc: ProcDirectory) -> None:
        """Read what /proc has."""
        self._namespaces: dict[str, str] = {}
        for name in _TYPES:
            try:
                self._namespaces[name] = proc.link(f"ns/{name}")
            except OSError:
                continue  # a kernel without this type; pid_for_children has no target before the first fork in a new namespace
        self._cgroup = proc.try_read_at_once("cgroup")
        self._maps: dict[str, bytes | None] = {}
        if self.differs("user"):
            self._maps = {"uid": proc.try_read("uid_map"), "gid": proc.try_read("gid_map")}
        self._offsets = proc.try_read("timens_offsets") if self.differs("time") else None

    def differs(self, name: str) -> bool:
        """Whether the process is in another namespace of a type than vcsimg itself."""
        return self._namespaces.get(name) not in (None, self._own[name])

    def finish(self, report: Report) -> None:
        """Write the sections."""
        if self._said[0] != self._namespaces:
            found = (
                Namespace(name, int(text.partition("[")[2].rstrip("]")), self.differs(name))
                for name, text in self._namespaces.items()
            )
            self._said = (self._namespaces, records(found))
        report.put("namespaces", self._said[1])
        for which, content in self._maps.items():
            for line in (content or b"").decode().splitlines():
                inside, outside, count = map(int, line.split())
                report.add("namespaces", IdMap(which, inside, outside, count))
        for line in (self._offsets or b"").decode().splitlines():
            clock, seconds, nanoseconds = line.split()
            report.add("namespaces", TimeOffset(clock, int(seconds), int(nanoseconds)))
        if self.differs("uts") and self._uname.result == 0:
            words = [self._name.data[at : at + _WORD].split(b"\0")[0].decode(errors="surrogateescape") for at in (_NODE, _DOMAIN)]
            report.add("namespaces", HostName(*words))
        for line in os.fsdecode(self._cgroup or b"").splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            report.add("cgroup", Cgroup(int(hierarchy), controllers, path))


def _own(name: str) -> str | None:
    try:
        return os.readlink(f"/proc/self/ns/{name}")
    except OSError:
        return None
