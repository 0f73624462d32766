"""pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2)."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np

from vcsimg.kernel.calls import call, call_in_a_row
from vcsimg.kernel.syscalls import NR

_PIDFD_THREAD = os.O_EXCL


def open(pid: int) -> int:
    """A descriptor for a process, readable when it has ended. Raises OSError (ESRCH)."""
    return os.pidfd_open(pid)


def open_thread(tid: int) -> int:
    """A descriptor for one thread. Raises OSError (ESRCH; EINVAL before Linux 6.9)."""
    return os.pidfd_open(tid, _PIDFD_THREAD)


def getfd(pidfd: int, fd: int) -> int:
    """A duplicate, in this process and close-on-exec, of descriptor `fd` of that process: the same open file. Needs the right to
    attach with ptrace. Raises OSError (EBADF, EPERM, ESRCH)."""
    return call(NR["pidfd_getfd"], pidfd, fd, 0)


def getfds(pidfd: int, fds: Sequence[int]) -> list[int | OSError]:
    """The same of many in one step; an error in the place of what could not be had."""
    calls = np.zeros((len(fds), 7), np.uint64)
    calls[:, 0], calls[:, 1], calls[:, 2] = NR["pidfd_getfd"], pidfd, fds
    return [own if own >= 0 else OSError(-own, os.strerror(-own)) for own in call_in_a_row(calls).tolist()]


def send_signal(pidfd: int, signum: int) -> None:
    """Raises OSError (ESRCH: it has ended)."""
    signal.pidfd_send_signal(pidfd, signum)
