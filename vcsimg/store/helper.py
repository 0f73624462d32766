"""A child process that consolidates packs while its parent records.

A thread would not do: it and the capture would take turns holding Python's interpreter lock, 5 ms each. The helper is told by
a byte on its standard input, and ends when that is closed: when the recorder closes the repository, or is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import vcsimg
from vcsimg.store.consolidate import consolidate

_NICE = 10
_PATIENCE = 2.0
_TICK = 0.005


class Helper:
    """The parent's end. Ended with the object, at the latest."""

    def __init__(self, repository: Path, *, sync: bool) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        source = str(Path(vcsimg.__file__).parent.parent)
        code = f"import sys; sys.path.insert(0, {source!r}); from vcsimg.store.helper import main; main()"
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", code, str(repository), "sync" if sync else "none"],
                {**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # see cli/commands.py
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, read_end, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, null, 2),
                ],
                # Ctrl-C in the terminal is for the recorder; it ends the helper when it has finished.
                setsid=True,
            )
        except OSError:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
            os.close(null)
        os.set_blocking(write_end, False)
        self._fd = write_end
        self._finalizer = weakref.finalize(self, _end, pid, write_end)

    def poke(self) -> None:
        """There is something to consolidate. Does not wait."""
        try:
            os.write(self._fd, b"\n")
        except BlockingIOError:
            pass  # thousands of bytes wait there already
        except BrokenPipeError:
            pass  # somebody killed it: TOO_MANY takes care of the rest

    def close(self) -> None:
        """Let it finish what it is doing, and end it."""
        self._finalizer()


def _end(pid: int, fd: int) -> None:
    os.close(fd)
    deadline = time.monotonic() + _PATIENCE
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                # A merge of gigabytes: nothing is lost, what it leaves behind is removed by the next writer.
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(_TICK)
    except ChildProcessError:
        pass  # the program that uses us waits for all its children


def main() -> None:
    """The child: consolidate whenever a byte comes, until the end of input."""
    repository, sync = Path(sys.argv[1]), sys.argv[2] == "sync"
    os.umask(0o077)
    _be_nice()
    while os.read(0, 4096):
        try:
            consolidate(repository, sync=sync)
        except OSError:
            return  # the disk is full, or the repository is gone: the recorder finds out by itself


def _be_nice() -> None:
    """Nice values count among the processes of a session, and this is the only one of its own: that has one, too (sched(7), "The autogroup feature")."""
    os.nice(_NICE)
    with suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(_NICE))
