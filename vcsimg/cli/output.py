"""What commands print: coloured and fitted to the window on a terminal, plain and stable text in a pipe, JSON when asked.

NO_COLOR is honoured (rich does that). Whatever comes from an image or a process passes through clean(): a name may hold escape
sequences that would change the reader's terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from vcsimg.image.region import Region

Part = str | tuple[str, str]
"""Text, or text and the style that it has on a terminal."""


def clean(text: str) -> str:
    """Text that is safe to print: control characters and undecodable bytes become `\\xHH`, newlines stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Column:
    """`right`: aligned to the right; `style`: of the cells that have none; `fold`: long cells are wrapped on a terminal."""

    title: str
    right: bool = False
    style: str = ""
    fold: bool = False


class Output:
    """One stream: standard output, or standard error."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Only for a terminal: importing rich takes longer than most commands."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
        return self._console

    def line(self, *parts: Part) -> None:
        """One line (or several, if the text has newlines)."""
        if self.terminal:
            self.console.print(self.text(*parts), soft_wrap=True)
        else:
            self.stream.write("".join(part if isinstance(part, str) else part[0] for part in map(_clean_part, parts)) + "\n")

    def text(self, *parts: Part) -> Text:
        """The parts as rich's text."""
        from rich.text import Text

        return Text.assemble(*map(_clean_part, parts))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Part]], *, titles: bool = True) -> None:
        """A table: fitted to the window on a terminal; in a pipe columns padded to the widest cell, two spaces between them."""
        if self.terminal:
            self._rich_table(columns, rows, titles)
            return
        texts = [[_plain(cell) for cell in row] for row in rows]
        if titles:
            texts.insert(0, [column.title for column in columns])
        widths = [max((len(row[index]) for row in texts), default=0) for index in range(len(columns))]
        for row in texts:
            cells = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(row, widths, columns, strict=True)
            ]
            self.stream.write("  ".join(cells).rstrip() + "\n")

    def _rich_table(self, columns: Sequence[Column], rows: Iterable[Sequence[Part]], titles: bool) -> None:
        from rich.table import Table

        table = Table(box=None, show_header=titles, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                style=column.style,
                overflow="fold" if column.fold else "ellipsis",
                no_wrap=not column.fold,
            )
        for row in rows:
            table.add_row(*(self.text(cell) for cell in row))
        self.console.print(table)

    def json(self, value: Any) -> None:
        """One JSON document on one line."""
        self.stream.write(json.dumps(value, ensure_ascii=True) + "\n")

    def bytes(self, data: bytes) -> None:
        """Bytes as they are."""
        self.stream.flush()
        self.stream.buffer.write(data)  # type: ignore[attr-defined]
        self.stream.buffer.flush()  # type: ignore[attr-defined]

    def flush(self) -> None:
        self.stream.flush()


def stdout() -> Output:
    return Output(sys.stdout)


def stderr() -> Output:
    return Output(sys.stderr)


def _clean_part(part: Part) -> Part:
    return clean(part) if isinstance(part, str) else (clean(part[0]), part[1])


def _plain(part: Part) -> str:
    return clean(part if isinstance(part, str) else part[0]).replace("\n", " ")


def size(count: int) -> str:
    """Bytes for people: 999 B, 48 KiB, 1.3 MiB."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{value / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """A pause for people: 412 µs, 1.6 ms, 0.25 s."""
    if seconds < 999.5e-6:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.09995:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


def moment(seconds: float) -> str:
    """A time (seconds since the epoch) in the local time zone: 2026-03-01 14:05:59."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def count(number: int, noun: str, plural: str | None = None) -> str:
    """1 page, 2 pages."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def region_name(region: Region) -> str:
    """The name of a region, or what to call one that has none."""
    return region.name or ("[shared]" if region.shared else "[anonymous]")
