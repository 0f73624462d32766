"""Starting a program to record it: its terminal, exit status and signals stay its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from vcsimg.errors import CommandNotStarted

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Sent to us alone when meant for the program. SIGINT and SIGQUIT come from the terminal, to its whole process group."""


@contextmanager
def launched(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program started in our place: in our process group, with our descriptors; signals that would end us go to it instead.

    It is never killed here: when the block is left while it runs, it runs on, and the caller waits for it. Raises
    CommandNotStarted.
    """
    try:
        process = subprocess.Popen(command, close_fds=False)
    except (OSError, ValueError) as error:
        raise CommandNotStarted(command[0], getattr(error, "errno", None) or errno.EINVAL) from None

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    before |= {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_as(status: int) -> int:
    """The exit status for us that tells what `status` (subprocess's: negative for a signal) tells. If a signal ended the program, it ends
    us too, so that a shell sees the same; where it does not, 128 + its number, as shells say it."""
    if status >= 0:
        return status
    number = -status
    with suppress(OSError, ValueError):
        # Without a core of our own: the program wrote one, if it was to.
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + number
