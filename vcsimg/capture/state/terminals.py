"""Section `terminals`."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from select import POLLOUT, poll

from vcsimg.capture.state import ptys
from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.item import Item, select
from vcsimg.image.sections.terminals import Control, Queued, Terminal
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import Process
from vcsimg.kernel import terminal
from vcsimg.kernel.procfs import parse_stat

_MAJORS = frozenset((4, 5, *range(136, 144), 166, 188, 204, 229))
"""tty and ttyS, tty and ptmx, pts, ttyACM, ttyUSB, other serial ports, hvc (Documentation/admin-guide/devices.txt)."""
_PTMX = terminal.PTMX
_NO_TERMINAL = "00:00"


def _takes(own: int) -> bool:
    """Whether something could be written (drivers/tty/n_tty.c, n_tty_poll)."""
    one = poll()
    one.register(own, POLLOUT)
    return bool(one.poll(0))


class TerminalProbe:
    """Reads terminals through the descriptors that refer to them."""

    def __init__(self) -> None:
        self._found: dict[int, Terminal] = {}
        self._waiting: dict[int, list[ptys.Waiting]] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "character" and int(descriptor.where.special.partition(":")[0], 16) in _MAJORS

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        device = descriptor.where.special
        master = device == _PTMX
        try:
            attributes = terminal.attributes(own)
        except OSError as error:
            if error.errno == errno.EIO:
                return  # it has hung up, and that is all that there is to say of it
            raise
        rows, columns, width, height = terminal.window_size(own)
        self._found[descriptor.fd] = Terminal(
            fd=descriptor.fd,
            role="ptmx" if master else "tty",
            device=device,
            pty=terminal.ask(own, terminal.TIOCGPTN) if master else None,
            input_flags=attributes.input_flags,
            output_flags=attributes.output_flags,
            control_flags=attributes.control_flags,
            local_flags=attributes.local_flags,
            line=attributes.line,
            characters=attributes.characters,
            input_speed=attributes.input_speed,
            output_speed=attributes.output_speed,
            rows=rows,
            columns=columns,
            width=width,
            height=height,
            # Only the master's side may ask for these from outside the session.
            session=terminal.ask(own, terminal.TIOCGSID) if master else None,
            foreground=terminal.ask(own, terminal.TIOCGPGRP) if master else None,
            locked=_flag(own, terminal.TIOCGPTLCK) if master else None,
            packet=_flag(own, terminal.TIOCGPKT) if master else None,
            exclusive=_flag(own, terminal.TIOCGEXCL),
            input=terminal.ask(own, terminal.FIONREAD) or 0,
            output=terminal.ask(own, terminal.TIOCOUTQ) or 0,
            full=None if master or _takes(own) else True,
        )
        if master:
            self._read_waiting(self._found[descriptor.fd], own, table)

    def _read_waiting(self, found: Terminal, own: int, table: Table) -> None:
        assert found.pty is not None
        device = terminal.pty_device(found.pty)
        opened = any(one.type == "character" and one.where.special == device for one in table.descriptors.values())
        waiting = ptys.waiting(own, found.session, packet=bool(found.packet), opened=opened)
        self._waiting[found.fd] = waiting

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        found = self._found.pop(descriptor.fd, None)
        if found is None:
            return
        report.add("terminals", found)
        waiting = self._waiting.pop(found.fd, [])
        report.add("terminals", *(Queued(found.fd, one.to, one.data, one.ended) for one in waiting))
        if found.role == "ptmx" and found.input and not any(one.to == "master" for one in waiting):
            report.unsaved(
                f"fd {found.fd}", f"{found.input} bytes that wait in the terminal cannot be copied: its session is not captured"
            )


def _flag(own: int, request: int) -> bool | None:
    value = terminal.ask(own, request)
    return bool(value) if value is not None else None


class ControlReader:
    """Reads which terminal controls the process."""

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._stat = moment.stat

    def finish(self, report: Report) -> None:
        """Write the record."""
        stat = parse_stat(self._stat)
        device = terminal.device_of(stat.tty_nr)
        if device != _NO_TERMINAL:
            report.add("terminals", Control(device, stat.tpgid))


def typed_ahead(processes: Iterable[Process]) -> dict[int, list[Item]]:
    """By process, what is lost of terminals whose master is in no process of the image: what waits there can be taken out, but not put back."""
    processes = list(processes)
    every = {process.pid: select(process.section("terminals"), Terminal) for process in processes}
    masters = {terminal.pty_device(found.pty) for one in every.values() for found in one if found.pty is not None}
    return {
        pid: [
            Unsaved(f"fd {found.fd}", f"{found.input} bytes typed ahead in the terminal cannot be copied")
            for found in terminals
            if found.role == "tty" and found.input and found.device not in masters
        ]
        for pid, terminals in every.items()
    }
