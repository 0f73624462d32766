"""ioctl_eventpoll(2), Linux 6.9."""

from __future__ import annotations

import fcntl
import struct

_SET, _GET = 0x40088A01, 0x80088A02
_PARAMETERS = struct.Struct("<IHBx")


def polling(fd: int) -> tuple[int, int, bool]:
    """Microseconds that a wait polls the network device, packets at once, whether that is preferred to interrupts. Raises OSError."""
    microseconds, budget, prefer = _PARAMETERS.unpack(fcntl.ioctl(fd, _GET, bytes(_PARAMETERS.size)))
    return microseconds, budget, bool(prefer)


def set_polling(fd: int, microseconds: int, budget: int, prefer: bool) -> None:
    """Raises OSError (EPERM: more than 64 packets at once need CAP_NET_ADMIN)."""
    fcntl.ioctl(fd, _SET, _PARAMETERS.pack(microseconds, budget, prefer))
