"""Keeping Ctrl-C out of the few steps that must not be left half done."""

from __future__ import annotations

import signal
import threading

# The functions behind those of `signal`, without the conversion of every number to an enum and back: 1 µs instead of 15.
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = tuple(map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))

_inside = False


class deferred:
    """Handlers of SIGINT, SIGTERM and SIGHUP that are written in Python run when the `with` block ends, not within it.

    Python runs handlers in the main thread only, so nothing is to be done in another one.
    """

    def __enter__(self) -> None:
        global _inside
        self._handlers: list[tuple[int, Any]] = []
        self._arrived: list[tuple[int, FrameType | None]] = []
        self._outermost = False
        if _inside or threading.current_thread() is not threading.main_thread():
            return
        try:
            self._outermost = _inside = True
            for number in _SIGNALS:
                handler = getsignal(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    set_handler(number, self._note)
        except BaseException:
            self._restore()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._outermost:
            self._restore()
            handlers = dict(self._handlers)
            for number, frame in self._arrived:
                handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append((number, frame))

    def _restore(self) -> None:
        """Put the handlers back, all of them, although each may raise an exception as soon as it is there."""
        global _inside
        _inside = False
        raised: BaseException | None = None
        left = list(self._handlers)
        while left:
            try:
                set_handler(*left[-1])
                left.pop()
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised
