"""A status line that is written over and over, on a terminal."""

from __future__ import annotations

from vcsimg.cli.output import Output, Part

_ERASE = "\r\x1b[K"


class LiveLine:
    """The last line of a terminal; nothing at all where there is none. The cursor is never hidden and nothing else of the terminal is
    touched, so whatever ends us leaves it in order."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown = False

    def show(self, *parts: Part) -> None:
        """Replace the line. What does not fit is cut off."""
        if not self._output.terminal:
            return
        text = self._output.text(*parts)
        console = self._output.console
        text.truncate(console.width - 1, overflow="ellipsis")
        self._output.stream.write(_ERASE)
        console.print(text, end="", soft_wrap=True)
        self._output.flush()
        self._shown = True

    def clear(self) -> None:
        """Take it away, before something else is printed."""
        if self._shown:
            self._output.stream.write(_ERASE)
            self._output.flush()
            self._shown = False
