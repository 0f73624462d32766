"""Section `terminals`."""

from __future__ import annotations

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.terminals import Control, Terminal
from vcsimg.kernel import terminal
from vcsimg.kernel.procfs import parse_stat

_MAJORS = frozenset((4, 5, *range(136, 144), 166, 188, 204, 229))
"""tty and ttyS, tty and ptmx, pts, ttyACM, ttyUSB, other serial ports, hvc (Documentation/admin-guide/devices.txt)."""
_PTMX = "05:02"
_NO_TERMINAL = "00:00"


class TerminalProbe:
    """Reads terminals through the descriptors that refer to them."""

    def __init__(self) -> None:
        self._found: dict[int, Terminal] = {}

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "character" and int(descriptor.where.special.partition(":")[0], 16) in _MAJORS

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        device = descriptor.where.special
        master = device == _PTMX
        attributes = terminal.attributes(own)
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
        )

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        found = self._found.pop(descriptor.fd)
        report.add("terminals", found)
        if found.input or found.output:
            report.unsaved(
                f"fd {found.fd}",
                f"{found.input} bytes of input and {found.output} of output that wait in the terminal cannot be copied",
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
