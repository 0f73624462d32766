"""mount(2)."""

from __future__ import annotations

import ctypes
import os

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC = 0x4000
MS_SLAVE = 1 << 19


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """`data`: options of the file system. Raises OSError."""
    buffers = [ctypes.create_string_buffer(os.fsencode(word)) for word in (source, target, kind, data)]
    first, second, third, fourth = map(ctypes.addressof, buffers)
    call(NR["mount"], first, second, third, flags, fourth if data else 0)
