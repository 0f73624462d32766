"""What waits in a pty: it can be read only by taking it out, so it is taken out and put back, at once.

Only where all who could read or write meanwhile are stopped: the capture has the master, and the leader of the session on the slave, if
there is one. A line that is not complete yet can be read only without ICANON, so that is switched off and on.
"""

from __future__ import annotations

import fcntl
import os
import select
from dataclasses import dataclass

from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.kernel import terminal

_CHUNK = 1 << 16
_FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
_HANGUP = select.POLLHUP


@dataclass(frozen=True, slots=True)
class Waiting:
    """`to`: slave or master. `ended`: a line without a newline, but whole."""

    to: str
    data: bytes
    ended: bool = False


def stopped_by_us(pid: int) -> bool:
    """Whether a process is one of those that are held."""
    try:
        status = ProcDirectory.of(pid).read("status")
    except OSError:
        return False
    return b"\nTracerPid:\t%d\n" % os.getpid() in status


def waiting(master: int, session: int | None, *, packet: bool, opened: bool) -> list[Waiting]:
    """`session`: its leader, if there is one; `opened`: a slave is known to be open. Raises OSError."""
    if session and not stopped_by_us(session):
        return []
    poll = select.poll()
    poll.register(master, select.POLLIN)
    events = dict(poll.poll(0)).get(master, 0)  # it passes on what was printed (drivers/tty/n_tty.c, n_tty_poll)
    printed = terminal.ask(master, terminal.FIONREAD) or 0
    if not (session or opened or events & _HANGUP or printed):
        return []
    try:
        slave = fcntl.ioctl(master, terminal.TIOCGPTPEER, _FLAGS)
    except OSError:
        return []  # locked, or the kernel is older than 4.13
    try:
        found = _typed(master, slave)
        if printed:
            found += _printed(master, slave, printed, packet)
        return found
    finally:
        os.close(slave)


def _typed(master: int, slave: int) -> list[Waiting]:
    attributes = terminal.attributes(slave)
    found = []
    try:
        if terminal.canonical(attributes):
            while (line := _read(slave, _CHUNK)) is not None:
                found.append(Waiting("slave", line, not line.endswith(b"\n")))
            terminal.set_attributes(slave, terminal.uncanonical(attributes))
        if terminal.ask(slave, terminal.FIONREAD):
            terminal.set_attributes(slave, terminal.uncanonical(attributes))
            while data := _read(slave, _CHUNK):
                found.append(Waiting("slave", data))
    finally:
        put_back(master, slave, attributes, found)
    return found


def _printed(master: int, slave: int, count: int, packet: bool) -> list[Waiting]:
    attributes = terminal.attributes(slave)
    found = []
    if packet:
        terminal.tell(master, terminal.TIOCPKT, 0)
    try:
        while count > 0:
            data = os.read(master, count)
            found.append(Waiting("master", data))
            count = terminal.ask(master, terminal.FIONREAD) or 0
    finally:
        put_back(master, slave, attributes, found)
        if packet:
            terminal.tell(master, terminal.TIOCPKT, 1)
    return found


def _read(slave: int, count: int) -> bytes | None:
    """None: nothing waits."""
    try:
        return os.read(slave, count)
    except BlockingIOError:
        return None


def put_back(master: int, slave: int, attributes: terminal.Termios2, found: list[Waiting]) -> None:
    """What was taken out; the terminal then has `attributes`. Raises OSError."""
    try:
        for one in found:
            if one.to == "master":
                terminal.set_attributes(slave, terminal.raw(attributes))
                os.write(slave, one.data)
                continue
            terminal.set_attributes(slave, terminal.silent(attributes))
            if one.data:
                os.write(master, one.data)
            if one.ended:
                terminal.set_attributes(slave, terminal.silent(attributes, end=True))
                os.write(master, terminal.END)
    finally:
        terminal.set_attributes(slave, attributes)
