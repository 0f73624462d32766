"""The user's terminal and the pty at which a restored session sits: bytes go to and fro, the window size comes along.

The user's terminal is raw meanwhile: Ctrl-C and Ctrl-Z are bytes, of which the pty's line discipline makes signals inside.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from vcsimg.kernel import terminal
from vcsimg.restore import Pty, Space

_CHUNK = 1 << 16


class Relay:
    """`standard`: the user's standard input, output and error, of which one is a terminal at least."""

    def __init__(self, pty: Pty, standard: Sequence[int | None]) -> None:
        self._pty = pty
        terminals = [fd if fd is not None and os.isatty(fd) else None for fd in standard]
        self._input = terminals[0]
        self._output = next((fd for fd in (terminals[1], terminals[2], terminals[0]) if fd is not None), None)
        self._terminal = next(fd for fd in terminals if fd is not None)
        self._before: list[int | list[bytes | int]] | None = None
        self._to_master = b""
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_handler = signal.signal(signal.SIGWINCH, self._note_change)

    def _note_change(self, number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.write(self._woken, b".")

    def begin(self) -> None:
        """Take the user's terminal; programs that fill a screen draw it anew."""
        with suppress(termios.error):
            self._before = termios.tcgetattr(self._terminal)
            tty.setraw(self._terminal, termios.TCSADRAIN)
        if not self._resize():
            self._redraw()

    def _resize(self) -> bool:
        """Whether the window has another size than the pty had; then the kernel says so to those inside."""
        with suppress(OSError):
            size = terminal.window_size(self._terminal)
            if size[:2] != (0, 0) and size != terminal.window_size(self._pty.master):
                terminal.set_window_size(self._pty.master, size)
                return True
        return False

    def _redraw(self) -> None:
        group = terminal.ask(self._pty.master, terminal.TIOCGPGRP)
        if group is not None and group > 1:
            with suppress(OSError):
                os.killpg(group, signal.SIGWINCH)

    def end(self) -> None:
        """Give the user's terminal back."""
        if self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
            self._before = None

    def close(self) -> None:
        signal.signal(signal.SIGWINCH, self._old_handler)
        for fd in (self._wake, self._woken, self._pty.master, self._pty.slave):
            os.close(fd)

    def event(self, space: Space) -> tuple[str, int]:
        """Relay until something happens to the root process; see Space.event(). What it has written by then has been shown."""
        poll = select.poll()
        poll.register(space, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            if self._input is not None and not self._to_master:
                poll.register(self._input, select.POLLIN)
            poll.register(self._pty.master, select.POLLIN | (select.POLLOUT if self._to_master else 0))
            ready = {fd for fd, _ in poll.poll()}
            if self._wake in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake, _CHUNK)
            self._resize()
            if self._input in ready:
                self._read(poll)
            if self._to_master:
                self._pass_on()
            while self._show():
                pass
            if space.fileno() in ready:
                found = space.event()
                while self._show():
                    pass
                return found

    def _read(self, poll: select.poll) -> None:
        assert self._input is not None
        try:
            self._to_master = os.read(self._input, _CHUNK)
        except OSError:
            self._to_master = b""
        poll.unregister(self._input)
        if not self._to_master:
            self._input = None  # the user's terminal has hung up

    def _pass_on(self) -> None:
        with suppress(BlockingIOError):
            self._to_master = self._to_master[os.write(self._pty.master, self._to_master) :]

    def _show(self) -> bool:
        try:
            data = os.read(self._pty.master, _CHUNK)
        except OSError:
            return False
        while data and self._output is not None:
            try:
                data = data[os.write(self._output, data) :]
            except BlockingIOError:
                select.select([], [self._output], [])
            except OSError:
                self._output = None
        return True
