"""What tests of captures share."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capture.comparison import read_everything
from vcsimg.capture.target import ProcessCapture
from vcsimg.process import HeldProcess


@pytest.fixture
def truths(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Any]]:
    """The truth of each process, read in the same stop in which a capture secures it."""
    found: dict[int, Any] = {}
    secure = ProcessCapture.secure_memory

    def read_too(self: ProcessCapture, held: HeldProcess, engine: str) -> None:
        secure(self, held, engine)
        found[held.pid] = read_everything(held.pid, held.memory)

    monkeypatch.setattr(ProcessCapture, "secure_memory", read_too)
    yield found
    # Hundreds of MiB, in part held by cycles: whatever is tested next forks faster without them.
    found.clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
