"""F_GETOWN_EX and F_GETSIG of fcntl(2)."""

from __future__ import annotations

import fcntl
import struct

TID, PID, PGRP = 0, 1, 2
_F_GETSIG = 11
_F_GETOWN_EX = 16


def owner(fd: int) -> tuple[int, int]:
    """TID, PID or PGRP, and the id as seen from here; 0: no one. Raises OSError."""
    kind, identifier = struct.unpack("<ii", fcntl.fcntl(fd, _F_GETOWN_EX, bytes(8)))
    return kind, identifier


def signal(fd: int) -> int:
    """The signal sent instead of SIGIO; 0: SIGIO itself. Raises OSError."""
    return fcntl.fcntl(fd, _F_GETSIG)
