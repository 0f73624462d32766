"""Section `signals`: handlers by a borrowed rt_sigaction(2) for each signal, and what waits for the process as a whole."""

from __future__ import annotations

import struct
from typing import Final

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.signals import Disposition, Handler
from vcsimg.image.sections.thread import Pending
from vcsimg.kernel.procfs import parse_status
from vcsimg.kernel.syscalls import NR

_LAST = 64
_FIXED: Final = frozenset({9, 19})
"""SIGKILL and SIGSTOP: their action cannot be changed."""
_SIGSET_SIZE = 8
_SIGACTION = struct.Struct("<QQQQ")
"""struct kernel_sigaction of x86-64: handler, flags, restorer, mask."""


def parse_siginfo(info: bytes) -> tuple[int, int]:
    """Signal number and code of a siginfo_t."""
    signal, _, code = struct.unpack_from("<iii", info)
    return signal, code


def pending_items(queue: list[bytes], mask: int) -> list[Pending]:
    """The queued signals in order, then those that are pending without a siginfo_t (the kernel had no memory for one)."""
    items = []
    for info in queue:
        signal, code = parse_siginfo(info)
        mask &= ~(1 << (signal - 1))
        items.append(Pending(signal, code, info))
    items += [Pending(signal, None, None) for signal in range(1, _LAST + 1) if mask >> (signal - 1) & 1]
    return items


class SignalsReader:
    """Reads it for one process."""

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Call, Buffer]] = []

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._status = moment.status
        self._queue = moment.held.threads[0].shared_pending()

    def ask(self, ask: Borrowings) -> None:
        """Handlers belong to the process, but a child made by clone(2) or fork(2) has the same: it may answer as well."""
        self._handlers = []
        for signal in range(1, _LAST + 1):
            if signal not in _FIXED:
                buffer = ask.buffer(_SIGACTION.size)
                self._handlers.append((signal, ask.call(NR["rt_sigaction"], signal, 0, buffer, _SIGSET_SIZE), buffer))

    def finish(self, report: Report) -> None:
        """Write the section."""
        status = parse_status(self._status)
        ignored, caught = int(status["SigIgn"], 16), int(status["SigCgt"], 16)
        report.add("signals", Disposition(ignored, caught))
        unread = False
        for signal, call, buffer in self._handlers:
            if call.result != 0:
                unread = True
                continue
            action, flags, restorer, mask = _SIGACTION.unpack(buffer.data)
            if action or flags or mask:
                report.add("signals", Handler(signal, action, flags, mask, restorer))
        if unread and caught:
            report.unsaved("signal handlers", "no system call could be borrowed to read them")
        report.add("signals", *pending_items(self._queue, int(status["ShdPnd"], 16)))
