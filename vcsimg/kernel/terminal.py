"""Terminals: ioctl_tty(2) numbers that Python lacks, and struct termios2 (asm-generic/termbits.h)."""

from __future__ import annotations

import fcntl
import struct
from typing import NamedTuple

TCGETS2 = 0x802C542A
TCSETS2 = 0x402C542B
TIOCGPTN = 0x80045430
TIOCGPTLCK = 0x80045439
TIOCGPKT = 0x80045438
TIOCGEXCL = 0x80045440
TIOCGSID = 0x5429
TIOCGPGRP = 0x540F
TIOCGWINSZ = 0x5413
TIOCOUTQ = 0x5411
FIONREAD = 0x541B
TIOCEXCL = 0x540C
TCXONC = 0x540A
TCOOFF = 0
TIOCSCTTY = 0x540E
TIOCSPGRP = 0x5410
TIOCSWINSZ = 0x5414
TIOCPKT = 0x5420
TIOCNOTTY = 0x5422
TIOCSETD = 0x5423
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

PTMX = "05:02"
TTY = "05:00"
_FIRST_PTS_MAJOR = 0x88
_PTS_MAJORS = 8

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


def set_attributes(fd: int, attributes: Termios2) -> None:
    """At once; what waits stays. Raises OSError."""
    fcntl.ioctl(fd, TCSETS2, _TERMIOS2.pack(*attributes))


def set_window_size(fd: int, size: tuple[int, int, int, int]) -> None:
    """As window_size() gives it; the foreground group gets SIGWINCH if it differs. Raises OSError."""
    fcntl.ioctl(fd, TIOCSWINSZ, _WINSIZE.pack(*size))


def tell(fd: int, request: int, value: int) -> None:
    """A request that takes the address of an int. Raises OSError."""
    fcntl.ioctl(fd, request, struct.pack("i", value))


def pty_number(device: str) -> int | None:
    """N of the device of /dev/pts/N (major:minor in hexadecimal); None for other devices. Raises ValueError."""
    major, minor = (int(part, 16) for part in device.split(":"))
    number = major - _FIRST_PTS_MAJOR
    return number << 8 | minor if 0 <= number < _PTS_MAJORS and minor < 1 << 8 else None


def pty_device(number: int) -> str:
    """The device of /dev/pts/NUMBER."""
    return f"{_FIRST_PTS_MAJOR + (number >> 8):02x}:{number & 0xFF:02x}"


_OPOST = 0x1
_ECHOES = 0x8 | 0x10 | 0x20 | 0x40 | 0x200 | 0x400 | 0x800
"""ECHO, ECHOE, ECHOK, ECHONL, ECHOCTL, ECHOPRT, ECHOKE."""
_ISIG, _ICANON, _NOFLSH = 0x1, 0x2, 0x80
_VMIN, _VTIME, _VEOF = 6, 5, 4
END = b"\x04"


def silent(attributes: Termios2, *, end: bool = False) -> Termios2:
    """The same, but what is typed is taken as it is, without echo; with ICANON lines still end at a newline, and, with `end`, at END."""
    characters = bytearray(len(attributes.characters))  # 0 is _POSIX_VDISABLE
    if end:
        characters[_VEOF] = END[0]
    elif not attributes.local_flags & _ICANON:
        characters[_VMIN] = 1
    local = attributes.local_flags & ~(_ECHOES | _ISIG) | _NOFLSH
    return attributes._replace(input_flags=0, local_flags=local, characters=bytes(characters))


def raw(attributes: Termios2) -> Termios2:
    """The same, but what is printed is passed on as it is."""
    return attributes._replace(output_flags=attributes.output_flags & ~_OPOST)


def canonical(attributes: Termios2) -> bool:
    """Whether it is read line by line."""
    return bool(attributes.local_flags & _ICANON)


def uncanonical(attributes: Termios2) -> Termios2:
    """The same, but what is there can be read byte by byte, without waiting."""
    characters = bytearray(attributes.characters)
    characters[_VMIN] = characters[_VTIME] = 0
    return attributes._replace(local_flags=attributes.local_flags & ~_ICANON, characters=bytes(characters))
