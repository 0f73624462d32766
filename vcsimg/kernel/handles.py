"""File handles: open_by_handle_at(2). Needs CAP_DAC_READ_SEARCH."""

from __future__ import annotations

import ctypes
import os
import struct

from vcsimg.kernel.calls import call
from vcsimg.kernel.procfs import read
from vcsimg.kernel.statx import device_name
from vcsimg.kernel.syscalls import NR

_O_PATH = 0o10000000


def path_of(pid: int, device: str, handle_type: int, handle: bytes) -> str | None:
    """A path, in the root of a process, of the file with a handle on a device; None when there is none, or it is not permitted.

    `device`: major:minor in hexadecimal, two digits or more each.
    """
    buffer = ctypes.create_string_buffer(struct.pack("<Ii", len(handle), handle_type) + handle)
    for point in _mount_points(pid, device):
        try:
            mount = os.open(f"/proc/{pid}/root{point}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            found = call(NR["open_by_handle_at"], mount, ctypes.addressof(buffer), _O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        finally:
            os.close(mount)
        try:
            return os.readlink(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
    return None


def _mount_points(pid: int, device: str) -> list[str]:
    """Where a device is mounted in the mount namespace of a process."""
    points = []
    for line in read(pid, "mountinfo").splitlines():
        words = line.split()
        major, _, minor = words[2].partition(b":")
        if device_name(int(major), int(minor)) == device:
            points.append(unescape(words[4]))
    return points


def unescape(field: bytes) -> str:
    """A field of mountinfo, where white space and backslash stand as \\ and three octal digits (proc_pid_mountinfo(5))."""
    for code in (b"040", b"011", b"012", b"134"):
        field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return os.fsdecode(field)
