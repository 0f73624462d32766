"""Guard regions: pages within a mapping that must not be touched (madvise(2), MADV_GUARD_INSTALL, Linux 6.13).

No map lists them, so page tables are walked for them; while the process runs, and only when its map has changed since: programs install guards
when they make mappings (a C library, for the stacks of threads).
"""

from __future__ import annotations

import os
from contextlib import suppress

from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.status import Guard
from vcsimg.kernel import pagemap, procfs

_END = (1 << 47) - (1 << 12)


class GuardsReader:
    """Reads them for one process."""

    def __init__(self) -> None:
        self._maps = b""
        self._found: list[tuple[int, int]] = []

    def prepare(self, proc: ProcDirectory, pid: int) -> bytes:
        """While it runs. Returns its map, as /proc has it."""
        maps = proc.try_read("maps") or b""
        if not maps:
            with suppress(OSError):
                pid = procfs.speaker(pid)
                maps = procfs.read(pid, "maps")
        if maps == self._maps:
            return maps
        self._maps, self._found = maps, []
        try:
            fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return maps
        try:
            found = pagemap.scan(fd, 0, _END, allof=pagemap.GUARD, returned=pagemap.GUARD)
            self._found = [(int(start), int(end)) for start, end, _ in found]
        except OSError:
            pass  # a kernel that does not tell (before 6.16), or has no guards
        finally:
            os.close(fd)
        return maps

    def finish(self, report: Report) -> None:
        """Write them into section status."""
        report.add("status", *(Guard(start, end) for start, end in self._found))
