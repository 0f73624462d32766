"""Changes go into the shadow while others are read and encoded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from vcsimg.capture.shadow import Shadow
from vcsimg.image.pages import PieceChange

_MOST = 32 << 20
"""Bytes on their way."""


class WriteBehind:
    """A context manager: what was given to write() is in the shadow at its end. The shadow must not be used for these pieces before."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._pool = ThreadPoolExecutor(1, "vcsimg-shadow")
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._size = 0

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._wait(0)

    def write(self, change: PieceChange) -> None:
        """Begin to write; `change` must stay as it is. Raises what an earlier write did: DiskFull, OSError."""
        future = self._pool.submit(self._shadow.write, change.number, change.pages, change.new, change.own)
        self._waiting.append((change.new.nbytes, future))
        self._size += change.new.nbytes
        self._wait(_MOST)

    def _wait(self, most: int) -> None:
        while self._waiting and (self._size > most or self._waiting[0][1].done()):
            size, future = self._waiting.popleft()
            self._size -= size
            future.result()
