"""System calls of this process that another of its OS threads makes, one after the other, while Python goes on in this one.

The thread runs a few machine instructions, not Python: coming back from each call it would wait for the interpreter's lock, and so would whoever
has it, at every system call of its own. Signals stay away from it, so that none of its calls ends early.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import threading
import time
from collections.abc import Callable

import numpy as np

from vcsimg.kernel.calls import Calls, Results, loop
from vcsimg.kernel.syscalls import NR

_PENDING = np.int64(1 << 62)
"""No system call has this result."""
_WORD = struct.Struct("<Q")
_EAGER = 2000
_NAP = 0.0001


class Aside:
    """Calls to be made when begin() says so. Making this takes some 100 µs; begin() takes 5. close() must be called: calls that were not begun are
    then not made at all, those that were are waited for.

    `calls`: may be changed until begin(). What they point to must stay where it is until close().
    """

    def __init__(self, calls: Calls) -> None:
        """Raises OSError when there can be no such thread: see calls.loop()."""
        function = loop()
        if function is None:
            raise OSError("this process gets no memory for code")
        self._go, self._leave = os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
        self._word = ctypes.create_string_buffer(_WORD.size)
        self._table = np.zeros((len(calls) + 2, 7), np.uint64)
        self._table[0, :4] = self._table[-1, :4] = NR["read"], self._go, ctypes.addressof(self._word), _WORD.size
        self._table[-1, 1] = self._leave
        self.calls = self._table[1:-1]
        self.calls[:] = calls
        self._results = np.full(len(self._table), _PENDING, np.int64)
        self._begun = self._closed = False
        self._thread = threading.Thread(target=self._run, args=(function,), name="vcsimg-aside", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # RLIMIT_NPROC
            os.close(self._go)
            os.close(self._leave)
            raise OSError(errno.EAGAIN, str(error)) from error

    def begin(self) -> None:
        """Make the calls now."""
        self._begun = True
        os.eventfd_write(self._go, 1)

    def results(self) -> Results:
        """Wait until all are made. begin() must have been called."""
        looks = 0
        while self._results[-2] == _PENDING:
            looks += 1
            if looks < _EAGER:
                os.sched_yield()
            else:
                time.sleep(_NAP)
        return self._results[1:-1]

    def close(self) -> None:
        """End the thread. Nothing more happens when called again."""
        if self._closed:
            return
        self._closed = True
        if not self._begun:
            self.calls[:, 0] = NR["getpid"]
            os.eventfd_write(self._go, 1)
        os.eventfd_write(self._leave, 1)
        self._thread.join()
        os.close(self._go)
        os.close(self._leave)

    def _run(self, function: Callable[[int, int, int], None]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # It stays inside until it is told to leave, that is, until time does not matter any more.
        function(self._table.ctypes.data, self._results.ctypes.data, len(self._table))
