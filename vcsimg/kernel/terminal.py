"""Terminals: ioctl_tty(2) numbers that Python lacks, and struct termios2 (asm-generic/termbits.h)."""

from __future__ import annotations

import fcntl
import struct
from typing import NamedTuple

TCGETS2 = 0x802C542A
TIOCGPTN = 0x80045430
TIOCGPTLCK = 0x80045439
TIOCGPKT = 0x80045438
TIOCGEXCL = 0x80045440
TIOCGSID = 0x5429
TIOCGPGRP = 0x540F
TIOCGWINSZ = 0x5413
TIOCOUTQ = 0x5411
FIONREAD = 0x541B

_TERMIOS2 = struct.Struct("<IIIIB19sII")
_WINSIZE = struct.Struct("<HHHH")


class Termios2(NamedTuple):
    """Speeds in bit/s."""

    input_flags: int
    output_flags: int
    control_flags: int
    local_flags: int
    line: int
    characters: bytes
    input_speed: int
    output_speed: int


def attributes(fd: int) -> Termios2:
    """Raises OSError; ENOTTY when it is no terminal."""
    return Termios2._make(_TERMIOS2.unpack(fcntl.ioctl(fd, TCGETS2, bytes(_TERMIOS2.size))))


def window_size(fd: int) -> tuple[int, int, int, int]:
    """Rows and columns, then width and height in pixels. Raises OSError."""
    rows, columns, width, height = _WINSIZE.unpack(fcntl.ioctl(fd, TIOCGWINSZ, bytes(_WINSIZE.size)))
    return rows, columns, width, height


def ask(fd: int, request: int) -> int | None:
    """The int that a request answers with; None where it does not apply."""
    try:
        value: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    except OSError:
        return None
    return value


def device_of(tty_nr: int) -> str:
    """The device that field tty_nr of proc_pid_stat(5) encodes, as major:minor in hexadecimal."""
    return f"{tty_nr >> 8 & 0xFFF:02x}:{tty_nr & 0xFF | tty_nr >> 12 & 0xFFF00:02x}"
