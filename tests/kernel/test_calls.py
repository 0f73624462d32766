"""System calls in a row, and aside."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from vcsimg.kernel import calls as kernel_calls
from vcsimg.kernel.aside import Aside
from vcsimg.kernel.calls import Calls, call_in_a_row
from vcsimg.kernel.syscalls import NR

TEXT = ctypes.create_string_buffer(b"abc", 3)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def writes(*fds: int) -> Calls:
    """One byte of TEXT after the other, each to one of the descriptors."""
    return np.array([(NR["write"], fd, ctypes.addressof(TEXT) + index, 1, 0, 0, 0) for index, fd in enumerate(fds)], np.uint64)


def test_calls_are_made_in_order_when_told_to(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    aside = Aside(writes(writing, 0xFFFFFFFF, writing))
    with pytest.raises(BlockingIOError):
        os.read(reading, 9)
    aside.begin()
    assert aside.results().tolist() == [1, -9, 1]
    assert os.read(reading, 9) == b"ac"
    aside.close()
    aside.close()


def test_calls_can_be_changed_until_then(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    aside = Aside(writes(0xFFFFFFFF))
    aside.calls[:, 1] = writing
    aside.begin()
    assert aside.results().tolist() == [1]
    aside.close()


def test_calls_that_were_not_begun_are_not_made(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    before = threading.active_count()
    Aside(writes(writing)).close()
    with pytest.raises(BlockingIOError):
        os.read(reading, 9)
    assert threading.active_count() == before


def test_signals_do_not_begin_or_end_them(pipe: tuple[int, int]) -> None:
    """The first call of that thread waits; a handler that ran there would end the wait."""
    reading, writing = pipe
    arrived = []
    before = signal.signal(signal.SIGUSR1, lambda *_: arrived.append(1))
    aside = Aside(writes(writing))
    try:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(BlockingIOError):
            os.read(reading, 9)
    finally:
        aside.close()
        signal.signal(signal.SIGUSR1, before)
    assert arrived


def test_what_was_begun_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    aside = Aside(writes(*[writing] * 3))
    aside.begin()
    aside.close()
    assert os.read(reading, 9) == b"abc"


@pytest.mark.parametrize("loop", [True, False])
def test_calls_in_a_row(loop: bool, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no memory of ours can be executable."""
    if not loop:
        monkeypatch.setattr(kernel_calls, "loop", lambda: None)
    reading, writing = pipe
    assert call_in_a_row(writes(writing, 0xFFFFFFFF, writing)).tolist() == [1, -9, 1]
    assert call_in_a_row(np.zeros((0, 7), np.uint64)).tolist() == []
    assert os.read(reading, 9) == b"ac"


def test_no_more_threads(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="can't start"):
        Aside(writes(pipe[1]))
    assert os.listdir("/proc/self/fd") == before
