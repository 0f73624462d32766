"""statx(2), asked never to wait: AT_STATX_DONT_SYNC takes what the kernel knows.

A file may live on a FUSE or network file system whose server is slow, dead, or one of the processes that we hold stopped.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_AT_EMPTY_PATH = 0x1000
_AT_NO_AUTOMOUNT = 0x800
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_BASIC_STATS = 0x7FF
_STATX_MNT_ID = 0x1000

# mask, blksize 4; attributes 8; nlink, uid, gid 4; mode 2, padding; ino, size, blocks, attributes_mask 8; four times 16;
# rdev, dev 4+4 each; mnt_id 8
_LAYOUT = struct.Struct("<II Q III H 2x QQQQ qI4x qI4x qI4x qI4x IIII Q")
_buffer = ctypes.create_string_buffer(256)
_address = ctypes.addressof(_buffer)


class Statx(NamedTuple):
    """`device`, `special` as major:minor in hexadecimal, two digits or more each.

    Times in nanoseconds since 1970; `mount` 0: unknown.
    """

    mode: int
    device: str
    inode: int
    links: int
    size: int
    mtime: int
    ctime: int
    special: str
    mount: int
    uid: int
    gid: int


def statx_raw(path: str, directory: int = -100, *, follow: bool = True) -> bytes:
    """What the kernel knows of a file, relative to a directory's descriptor: struct statx, for `parse`.

    `path` "": the file of that descriptor itself. Raises OSError. Not for concurrent use.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    flags = _AT_STATX_DONT_SYNC | _AT_NO_AUTOMOUNT | (0 if follow else _AT_SYMLINK_NOFOLLOW) | (0 if path else _AT_EMPTY_PATH)
    call(NR["statx"], directory, ctypes.addressof(name), flags, _STATX_BASIC_STATS | _STATX_MNT_ID, _address)
    return _buffer.raw


def statx(path: str, directory: int = -100, *, follow: bool = True) -> Statx:
    """`statx_raw`, parsed."""
    return parse(statx_raw(path, directory, follow=follow))


def mode_of(raw: bytes) -> int:
    """st_mode alone, without parsing the rest."""
    return raw[28] | raw[29] << 8


def device_name(major: int, minor: int) -> str:
    """A device as /proc/PID/maps writes it."""
    return f"{major:02x}:{minor:02x}"


def decode_device(number: int) -> str:
    """From the kernel's own encoding in a file of /proc (sdev, tty_nr beyond 8 bits excepted): major << 20 | minor."""
    return device_name(number >> 20, number & 0xFFFFF)


def parse(raw: bytes) -> Statx:
    """The fields of a struct statx."""
    values = _LAYOUT.unpack_from(raw)
    (_, _, _, links, uid, gid, mode, inode, size, _, _) = values[:11]
    ctime = values[15] * 1_000_000_000 + values[16]
    mtime = values[17] * 1_000_000_000 + values[18]
    rmajor, rminor, major, minor, mount = values[19:24]
    return Statx(mode, device_name(major, minor), inode, links, size, mtime, ctime, device_name(rmajor, rminor), mount, uid, gid)
