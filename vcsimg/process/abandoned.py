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


def abandon(thread: HeldThread) -> None:
    """Let go of a thread as soon as it stops."""
    global _previous
    _threads[thread.tid] = thread
    # Once installed, the handler stays: Python complains of a signal whose handler was taken away when it had just come.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCHLD) is not _on_child:
        _previous = signal.signal(signal.SIGCHLD, _on_child)
    sweep()


def reclaim(tid: int) -> bool:
    """Whether a thread was abandoned and is traced still; from now on it is the caller's again."""
    return _threads.pop(tid, None) is not None


def sweep() -> None:
    """Let go of the abandoned threads that have stopped or ended meanwhile."""
    for tid, thread in list(_threads.items()):
        if stopping.try_let_go(thread):
            _threads.pop(tid, None)


def _on_child(number: int, frame: FrameType | None) -> None:
    sweep()
    if callable(_previous):
        _previous(number, frame)
