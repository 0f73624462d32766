"""State that a process has and that cannot be copied: only whether there is any is asked, so that it is named."""

from __future__ import annotations

import os

from vcsimg.capture.state.borrowing import Borrowings
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.kernel import kcmp
from vcsimg.kernel.procfs import status_line
from vcsimg.kernel.syscalls import NR

_LDT_ENTRY = 8
_EPERM = 1


class HiddenReader:
    """Asks one process."""

    def ask(self, ask: Borrowings) -> None:
        """Note the questions. None of them changes anything: vcsimg is only looked at."""
        self._table = ask.call(NR["modify_ldt"], 0, ask.buffer(_LDT_ENTRY), _LDT_ENTRY)
        self._look = ask.call(NR["kcmp"], os.getpid(), os.getpid(), kcmp.VM, 0, 0)

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._status = moment.status

    def finish(self, report: Report, *, same_users: bool) -> None:
        """Name what there is. `same_users`: it lives in vcsimg's user namespace."""
        if self._table.result is not None and self._table.result > 0:
            report.unsaved("local descriptor table", "segments that were set by modify_ldt(2) are not copied")
        if self._look.result == -_EPERM and same_users and self._might_look():
            report.unsaved("landlock", "a security module (Landlock) confines it, and that cannot be copied")

    def _might_look(self) -> bool:
        """Whether a process like this one could look at vcsimg, if nothing but the usual rules forbade it (ptrace(2), "Ptrace access mode
        checking"). Only of those that have given up gaining rights, as whoever confines itself does first."""
        own = _own_status()
        ours, theirs = (int(status_line(status, "CapPrm"), 16) for status in (own, self._status))
        alike = status_line(own, "Uid") == status_line(self._status, "Uid") and not ours & ~theirs
        here = "NSpid" not in own.decode(errors="replace") or len(status_line(self._status, "NSpid").split()) == 1
        return alike and here and status_line(self._status, "NoNewPrivs") == "1" and _can_be_seen()


def _own_status() -> bytes:
    with open("/proc/self/status", "rb") as file:
        return file.read()


def _can_be_seen() -> bool:
    """Whether kcmp(2) is there, and vcsimg may be looked at."""
    try:
        return kcmp.same(os.getpid(), os.getpid(), kcmp.VM) and os.stat(f"/proc/{os.getpid()}/environ").st_uid == os.getuid()
    except OSError:
        return False
