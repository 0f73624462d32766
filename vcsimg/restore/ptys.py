"""Pseudo-terminals: those of which the image has the master, and those that stand in for a terminal outside of it.

In a devpts file system of their own they have the numbers that they had. One stand-in is attended: whoever restores relays between it and the
user's terminal. The others are unattended: the init reads what is written to them, and throws it away.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Credentials
from vcsimg.image.sections.terminals import Control, Queued, Terminal
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.kernel import terminal

_MUCH = 4096
"""Bytes for the master so many that a slave may take no more (drivers/tty/tty_buffer.c, tty_buffer_space_avail); with fewer, its output was stopped."""
_LARGEST = 1 << 12
"""kernel.pty.max, and what a devpts file system holds at most."""
_O_RDWR = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True)
class Pty:
    """`device`: what its slave was; `number`: N of /dev/pts/N now; `master`, `slave`: descriptors of ours, which do not block. `inside`: the
    image has its master, or a hung-up slave."""

    device: str
    number: int
    master: int
    slave: int
    inside: bool
    record: Terminal | None

    @property
    def path(self) -> str:
        """As the processes see it."""
        return f"/dev/pts/{self.number}"

    def attributes(self) -> terminal.Termios2 | None:
        """What the image says of it."""
        found = self.record
        if found is None:
            return None
        return terminal.Termios2(
            found.input_flags, found.output_flags, found.control_flags, found.local_flags, found.line, found.characters,
            found.input_speed, found.output_speed,
        )  # fmt: skip


class Ptys:
    """By the device that they were. `attended`: the one that the user's terminal is for."""

    def __init__(self, snapshot: Snapshot, *, attended: bool) -> None:
        """`attended`: the user has a terminal."""
        self._snapshot = snapshot
        self._records: dict[str, Terminal] = {}
        self._exclusive: set[str] = set()
        self._full: set[str] = set()
        self._hung: set[str] = set()
        self._inside: set[str] = set()
        self._wanted: dict[str, None] = {}
        for process in snapshot.processes:
            self._look(process)
        outside = [device for device in self._wanted if device not in self._inside | self._hung]
        self._attended = self._foremost(outside) if attended and outside else None
        self.made: dict[str, Pty] = {}

    def _look(self, process: Process) -> None:
        section = process.section("terminals")
        known = {found.fd: found for found in select(section, Terminal)}
        for control in select(section, Control):
            self._want(control.device)
        for found in known.values():
            if found.role == "ptmx":
                if found.pty is None or not 0 <= found.pty < _LARGEST:
                    raise HostileImage(f"process {process.pid} fd {found.fd}", f"a pty with the number {found.pty}")
                device = terminal.pty_device(found.pty)
                self._inside.add(device)
                self._records[device] = found
                self._want(device)
            elif found.device != terminal.TTY:
                if found.exclusive:
                    self._exclusive.add(found.device)
                if found.full:
                    self._full.add(found.device)
                self._records.setdefault(found.device, found)
                self._want(found.device)
        for file in select(process.section("files"), File):
            if file.type == "character" and file.special is not None and file.fd not in known and _number(file.special) is not None:
                self._hung.add(file.special)
                self._want(file.special)

    def _want(self, device: str) -> None:
        _number(device)
        self._wanted[device] = None

    def _foremost(self, outside: list[str]) -> str:
        """Of the terminals outside, the one that the user sits at."""
        root = self._snapshot.processes[0]
        section = root.section("terminals")
        candidates = [control.device for control in select(section, Control)]
        candidates += [found.device for found in sorted(select(section, Terminal), key=lambda found: found.fd)]
        return next((device for device in candidates if device in outside), outside[0])

    @property
    def needed(self) -> bool:
        return bool(self._wanted)

    @property
    def attended(self) -> Pty | None:
        return self.made.get(self._attended) if self._attended is not None else None

    def unattended(self) -> Iterator[Pty]:
        """Those that stand in for a terminal, and nobody looks at."""
        return (pty for pty in self.made.values() if not pty.inside and pty.device != self._attended)

    def make(self, root: str, notes: list[str]) -> None:
        """All of them; `root`: the root folder of the processes. Raises RestoreError."""
        numbers = {number: device for device in self._wanted if (number := _number(device)) is not None}
        spare: list[tuple[int, int]] = []
        try:
            try:
                while numbers.keys() - {pty.number for pty in self.made.values()}:
                    number, master = _open_master(root)
                    if number in numbers:
                        self._add(root, numbers[number], number, master)
                        continue
                    spare.append((number, master))
                    if number > max(numbers):
                        break  # in a devpts file system that others use, too
            except OSError as error:
                raise RestoreError("pseudo-terminal", str(error.strerror)) from None
        finally:
            for _, master in spare:
                os.close(master)
        for device in self._wanted:
            if device not in self.made:
                number, master = _open_master(root)
                self._add(root, device, number, master)
                notes.append(f"terminal {_name(device)} is /dev/pts/{number} now")
        notes.extend(f"nobody sits at terminal {pty.path}: what is written there is thrown away" for pty in self.unattended())

    def _add(self, root: str, device: str, number: int, master: int) -> None:
        try:
            terminal.tell(master, terminal.TIOCSPTLCK, 0)
            path = f"{root}/dev/pts/{number}"
            slave = os.open(path, _O_RDWR)
        except OSError:
            os.close(master)
            raise
        record = self._records.get(device)
        pty = Pty(device, number, master, slave, device in self._inside | self._hung, record)
        self.made[device] = pty
        attributes = pty.attributes()
        if record is not None and attributes is not None:
            if record.line:
                terminal.tell(slave, terminal.TIOCSETD, record.line)
            terminal.set_attributes(slave, attributes)
            terminal.set_window_size(slave, (record.rows, record.columns, record.width, record.height))
        self._own(path, device)

    def _own(self, path: str, device: str) -> None:
        """The owner of a terminal is who works there."""
        for process in self._snapshot.processes:
            for file in select(process.section("files"), File):
                if file.type == "character" and file.special == device:
                    with suppress(OSError):  # in a user namespace there is one user only
                        os.chmod(path, file.mode & 0o777)
                        os.chown(path, select(process.section("status"), Credentials)[0].uid[1], -1)
                    return

    def open(self, device: str, flags: int, root: str) -> int:
        """An open file of the slave. Raises OSError."""
        return os.open(f"{root}/dev/pts/{self.made[device].number}", flags | os.O_NOCTTY | os.O_CLOEXEC)

    def finish(self) -> None:
        """What waits in them, and what would be in the way before: modes of the master, locks; the hung-up lose their master. Raises RestoreError,
        OSError."""
        first: dict[str, tuple[int, int]] = {}
        waiting: dict[str, int] = {}
        for process in self._snapshot.processes:
            for queued in select(process.section("terminals"), Queued):
                pty = self._of_master(process, queued.fd)
                # Processes that share the master all tell of it.
                if pty is not None and first.setdefault(pty.device, (process.pid, queued.fd)) == (process.pid, queued.fd):
                    _inject(pty, queued)
                    if queued.to == "master":
                        waiting[pty.device] = waiting.get(pty.device, 0) + len(queued.data)
        for pty in self.made.values():
            record = pty.record
            if record is None:
                continue
            if pty.device in self._exclusive:
                terminal.tell(pty.slave, terminal.TIOCEXCL, 0)
            if pty.device in self._full & self._inside and waiting.get(pty.device, 0) < _MUCH:
                fcntl.ioctl(pty.slave, terminal.TCXONC, terminal.TCOOFF)
            if record.role == "ptmx":
                if record.exclusive:
                    terminal.tell(pty.master, terminal.TIOCEXCL, 0)
                if record.packet:
                    terminal.tell(pty.master, terminal.TIOCPKT, 1)
                if record.locked:
                    terminal.tell(pty.master, terminal.TIOCSPTLCK, 1)
        for device in self._hung & self.made.keys() - self._inside:
            self._close(self.made.pop(device))

    def _of_master(self, process: Process, fd: int) -> Pty | None:
        for found in select(process.section("terminals"), Terminal):
            if found.fd == fd and found.role == "ptmx" and found.pty is not None:
                return self.made.get(terminal.pty_device(found.pty))
        return None

    def close(self, keep: int | None = None) -> None:
        """Our descriptors, but those of the one whose master is `keep`."""
        for pty in self.made.values():
            if pty.master != keep:
                self._close(pty)
        self.made.clear()

    @staticmethod
    def _close(pty: Pty) -> None:
        os.close(pty.slave)
        os.close(pty.master)


def _number(device: str) -> int | None:
    try:
        return terminal.pty_number(device)
    except ValueError:
        raise HostileImage("terminal", f"{device[:40]!r} is no device") from None


def _name(device: str) -> str:
    number = _number(device)
    return f"/dev/pts/{number}" if number is not None else f"with the device {device}"


def _open_master(root: str) -> tuple[int, int]:
    """Number and descriptor of a new pty, of the file system next to this ptmx (fs/devpts/inode.c, devpts_ptmx_path)."""
    master = os.open(f"{root}/dev/ptmx", _O_RDWR)
    number = terminal.ask(master, terminal.TIOCGPTN)
    if number is None:
        os.close(master)
        raise RestoreError("pseudo-terminal", "/dev/ptmx is something else")
    return number, master


def _inject(pty: Pty, queued: Queued) -> None:
    """Put something where it waits: what was typed through the master, what was printed through the slave."""
    attributes = pty.attributes()
    assert attributes is not None
    try:
        if queued.to == "slave":
            _write(pty.master, queued.data, pty.slave, terminal.silent(attributes))
            if queued.ended:
                _write(pty.master, terminal.END, pty.slave, terminal.silent(attributes, end=True))
        else:
            _write(pty.slave, queued.data, pty.slave, terminal.raw(attributes))
    except OSError as error:
        raise RestoreError(f"terminal {pty.path}", f"what waited in it: {error.strerror}") from None
    finally:
        terminal.set_attributes(pty.slave, attributes)


def _write(end: int, data: bytes, slave: int, attributes: terminal.Termios2) -> None:
    terminal.set_attributes(slave, attributes)
    while data:
        data = data[os.write(end, data) :]
