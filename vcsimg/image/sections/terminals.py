"""Section `terminals`."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item


@dataclass(frozen=True, slots=True)
class Control(Item, kind="control"):
    """The controlling terminal: its device, and the foreground process group (-1: none)."""

    device: str
    foreground: int


@dataclass(frozen=True, slots=True)
class Terminal(Item, kind="terminal"):
    """A terminal that a descriptor refers to, by the lowest one.

    `role`: tty, or ptmx for the master of the pty with number `pty`. Its attributes are those of
    struct termios2 (asm-generic/termbits.h): speeds in bit/s. struct winsize: characters, then pixels.
    `input`, `output`: bytes that wait in it. `locked`, `packet`, `exclusive`: TIOCGPTLCK, TIOCGPKT, TIOCGEXCL. `full`: a slave that takes nothing:
    its output was stopped (Ctrl-S, tcflow(3)), or much waits for the master.
    """

    fd: int
    role: str
    device: str
    pty: int | None
    input_flags: Hex
    output_flags: Hex
    control_flags: Hex
    local_flags: Hex
    line: int
    characters: bytes
    input_speed: int
    output_speed: int
    rows: int
    columns: int
    width: int
    height: int
    session: int | None
    foreground: int | None
    locked: bool | None
    packet: bool | None
    exclusive: bool | None
    input: int
    output: int
    full: bool | None = None


@dataclass(frozen=True, slots=True)
class Queued(Item, kind="queued"):
    """What waits in the pty of the master `fd`, in order: typed, and not yet read by the slave (`to` slave), or printed, and not yet read by the
    master (`to` master). Lines of a terminal that is read line by line are records of their own; `ended`: without a newline, but whole."""

    fd: int
    to: str
    data: bytes
    ended: bool
