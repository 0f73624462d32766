"""Keeping Ctrl-C out of the few steps that must not be left half done."""

from __future__ import annotations

import signal
import threading

# The functions behind those of `signal`, without the conversion of every number to an enum and back: 1 µs instead of 15.
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
_inside = False


@contextmanager
def deferred() -> Iterator[None]:
    """Handlers of SIGINT, SIGTERM and SIGHUP that are written in Python run when the `with` block ends, not within it.

    Python runs handlers in the main thread only, so nothing is to be done in another one.
    """
    global _inside
    if _inside or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := getsignal(number))}
    try:
        _inside = True
        for number in handlers:
            set_handler(number, lambda number, frame: arrived.append((number, frame)))
        yield
    finally:
        for number, handler in handlers.items():
            set_handler(number, handler)
        _inside = False
        for came, frame in arrived:
            handlers[came](came, frame)
