"""Names of files, used without being led elsewhere: openat2(2) that follows no link, renameat2(2)."""

from __future__ import annotations

import ctypes
import os
import struct

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_NOREPLACE = 1
_EXCHANGE = 2


def open_directly(path: str, flags: int, directory: int) -> int:
    """Open a file below a directory, on a path without symbolic links or `..` out of it. Raises OSError (ELOOP: there is a link)."""
    how = ctypes.create_string_buffer(
        struct.pack("<QQQ", flags, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH), 24
    )
    name = ctypes.create_string_buffer(os.fsencode(path))
    return call(NR["openat2"], directory, ctypes.addressof(name), ctypes.addressof(how), 24)


def exchange(one: str, other: str, directory: int) -> None:
    """Each of two files of a directory gets the other's name, at once. Raises OSError (EINVAL: not on this file system)."""
    _rename(one, other, directory, _EXCHANGE)


def rename_to_new(old: str, new: str, directory: int) -> None:
    """Rename a file within a directory. Raises OSError (EEXIST: there is one of that name)."""
    _rename(old, new, directory, _NOREPLACE)


def _rename(old: str, new: str, directory: int, flags: int) -> None:
    names = [ctypes.create_string_buffer(os.fsencode(name)) for name in (old, new)]
    call(NR["renameat2"], directory, ctypes.addressof(names[0]), directory, ctypes.addressof(names[1]), flags)
