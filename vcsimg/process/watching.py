"""A userfaultfd that belongs to a held process, in our hands."""

from __future__ import annotations

import os

from vcsimg.errors import BorrowError
from vcsimg.kernel import pidfd, userfaultfd
from vcsimg.kernel.syscalls import NR
from vcsimg.process.held import HeldProcess


def open_userfaultfd(held: HeldProcess) -> int:
    """A descriptor of ours for a userfaultfd of the process's address space, asynchronous write-protection chosen. The process
    keeps no descriptor. Raises BorrowError."""
    with held.borrow() as borrowed:
        remote = borrowed.syscall(NR["userfaultfd"], userfaultfd.OPEN_FLAGS)
        try:
            process = pidfd.open(held.pid)
            try:
                uffd = pidfd.getfd(process, remote)
            finally:
                os.close(process)
        except OSError as error:
            raise BorrowError(held.pid, f"its userfaultfd cannot be taken over: {error.strerror}", errno=error.errno) from None
        finally:
            borrowed.syscall(NR["close"], remote)
    try:
        userfaultfd.enable(uffd)
    except OSError as error:
        os.close(uffd)
        raise BorrowError(held.pid, f"no asynchronous write-protection: {error.strerror}", errno=error.errno) from None
    return uffd
