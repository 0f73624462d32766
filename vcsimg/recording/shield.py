"""Signals that would end or stop vcsimg wait while a process is held.

Between the moment when a process is stopped and the one when it runs again, an exception in the wrong place could leave it with a
borrowed thread's registers, and a vcsimg that is itself stopped (Ctrl-Z) would keep it stopped. So what comes meanwhile is noted, and
takes effect when the process runs again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Shield:
    """A `with` block in which those signals wait; `with shield.lowered():` lets them in for a while.

    Only the main thread can do this (signal(2) handlers are Python's there): in another one it does nothing, and the signals reach the
    main thread, which holds no process.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._noted: list[int] = []

    def __enter__(self) -> Shield:
        self._raise()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lower()

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """Signals that waited take effect at the beginning of this block, and those that come meanwhile at once."""
        self._lower()
        try:
            yield
        finally:
            self._raise()

    def _raise(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _DEFERRED:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                self._before[number] = handler
                signal.signal(number, self._note)

    def _lower(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        noted, self._noted = self._noted, []
        for number in noted:
            signal.raise_signal(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number not in self._noted:
            self._noted.append(number)
