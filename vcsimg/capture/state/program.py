"""Sections `auxv`, `cmdline`, `environ` and `limits`.

The first three are memory of the process, so they are read at the instant like the rest of it: a process may write its own title.
"""

from __future__ import annotations

import struct

from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.item import UNLIMITED, records
from vcsimg.image.sections.program import Argument, AuxvEntry, ResourceLimit, Variable
from vcsimg.image.snapshot import Section

_LIMITS = {
    "Max cpu time": "cpu", "Max file size": "fsize", "Max data size": "data", "Max stack size": "stack",
    "Max core file size": "core", "Max resident set": "rss", "Max processes": "nproc", "Max open files": "nofile",
    "Max locked memory": "memlock", "Max address space": "as", "Max file locks": "locks", "Max pending signals": "sigpending",
    "Max msgqueue size": "msgqueue", "Max nice priority": "nice", "Max realtime priority": "rtprio", "Max realtime timeout": "rttime",
}  # fmt: skip
"""How /proc/PID/limits calls them (fs/proc/base.c), and the constant without RLIMIT_."""
_NAME_WIDTH = 26


class ProgramReader:
    """Reads them for one process."""

    def __init__(self) -> None:
        self._said: tuple[tuple[bytes | None, ...], dict[str, Section]] = ((), {})

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self.look(moment.proc)

    def look(self, proc: ProcDirectory) -> None:
        """Read what /proc has."""
        self._auxv = proc.try_read_at_once("auxv")
        self._cmdline = proc.try_read_at_once("cmdline")
        self._environ = proc.try_read_at_once("environ")
        self._limits = proc.try_read_at_once("limits")

    def finish(self, report: Report) -> None:
        """Write the sections."""
        contents = (self._auxv, self._cmdline, self._environ, self._limits)
        if self._said[0] != contents:
            self._said = (contents, self._records())
        for section, found in self._said[1].items():
            report.put(section, found)
        for name, content in (("auxv", self._auxv), ("environ", self._environ), ("limits", self._limits)):
            if content is None:
                report.unsaved(name, f"/proc/PID/{name} cannot be read")

    def _records(self) -> dict[str, Section]:
        auxv = self._auxv or b""
        limits = (self._limits or b"").decode().splitlines()[1:]
        return {
            "auxv": records(AuxvEntry(*entry) for entry in struct.iter_unpack("<QQ", auxv[: len(auxv) & -16]) if entry[0]),
            "cmdline": records(Argument(text) for text in _strings(self._cmdline)),
            "environ": records(Variable(text) for text in _strings(self._environ)),
            "limits": records(_limit(line) for line in limits),
        }


def _strings(content: bytes | None) -> list[str]:
    """Strings that each end with a zero byte; the last may lack it."""
    if not content:
        return []
    return [part.decode("utf-8", "surrogateescape") for part in content.removesuffix(b"\0").split(b"\0")]


def _limit(line: str) -> ResourceLimit:
    name, words = line[:_NAME_WIDTH].rstrip(), line[_NAME_WIDTH:].split()
    soft, hard = (UNLIMITED if word == "unlimited" else int(word) for word in words[:2])
    return ResourceLimit(_LIMITS[name], soft, hard)
