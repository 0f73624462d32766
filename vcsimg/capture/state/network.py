"""The network namespace of a held process, and how to ask in it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vcsimg.errors import BorrowError
from vcsimg.kernel import pidfd
from vcsimg.kernel.sockdiag import UnixDiag
from vcsimg.kernel.syscalls import NR
from vcsimg.process import HeldProcess


@dataclass(frozen=True, slots=True)
class Network:
    """`name`: the link /proc/PID/ns/net of the process."""

    held: HeldProcess
    process: int
    name: str

    def unix_diag(self) -> UnixDiag:
        """A netlink socket that belongs to the namespace. A socket is of the namespace of the process that makes it, so in another than
        our own the process makes it for us and we take it over: that needs no privilege. Raises OSError."""
        if self.name == os.readlink("/proc/self/ns/net"):
            return UnixDiag()
        try:
            with self.held.borrow() as borrowed:
                fd = borrowed.syscall(NR["socket"], *UnixDiag.ARGUMENTS)
                try:
                    return UnixDiag(pidfd.getfd(self.process, fd))
                finally:
                    borrowed.syscall(NR["close"], fd)
        except BorrowError as error:
            raise OSError(
                error.errno or 0, "the process is in another network namespace, and cannot be borrowed to ask there"
            ) from error
