"""Threads that were asked to stop, did not, and will when they leave the kernel.

ptrace cannot let go of a thread that is not stopped. One that waits in the kernel for long (a vfork child, a dead network file
system) therefore stays ours after we have given up, and stops as soon as it is back. It must be let go then: SIGCHLD tells
that it has stopped, and its handler, which Python runs in the main thread, detaches from it. Where the tracing OS thread is not the main
thread, the next hold() does it, or the end of the OS thread.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from vcsimg.process import stopping
from vcsimg.process.thread import HeldThread

_threads: dict[int, HeldThread] = {}
_previous: Any = None
_installed = False


def abandon(thread: HeldThread) -> None:
    """Let go of a thread as soon as it stops."""
    global _previous, _installed
    _threads[thread.tid] = thread
    if not _installed and threading.current_thread() is threading.main_thread():
        _previous = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, _on_child)
        _installed = True
    sweep()


def reclaim(tid: int) -> bool:
    """Whether a thread was abandoned by this OS thread and is still traced; from now on it is the caller's again."""
    return _threads.pop(tid, None) is not None


def sweep() -> None:
    """Let go of the abandoned threads that have stopped or ended meanwhile."""
    global _installed
    for tid, thread in list(_threads.items()):
        if stopping.try_let_go(thread):
            _threads.pop(tid, None)
    if _installed and not _threads and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, _previous if _previous is not None else signal.SIG_DFL)
        _installed = False


def _on_child(number: int, frame: FrameType | None) -> None:
    previous = _previous
    sweep()
    if callable(previous):
        previous(number, frame)
