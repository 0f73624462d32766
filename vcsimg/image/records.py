"""Records: the one-line text form of everything in an image that is not memory.

The syntax is given in docs/image-format.md, "Text".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vcsimg.errors import HostileImage

_WORD = re.compile(r"[a-z][a-z0-9_-]*\Z")
_BARE = re.compile(r"[A-Za-z0-9_./:+@,|<>()*%^~;!?\[\]{}&-]+\Z")
_TOKEN = re.compile(r' ([a-z][a-z0-9_-]*)=(?:"((?:[^"\\\n]|\\.)*)"|([A-Za-z0-9_./:+@,|<>()*%^~;!?\[\]{}&-]+))')
_UNESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|([\\"ntr]))')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_UNESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", "r": "\r"}


def quote(value: str) -> str:
    """A value as it stands in text: bare if it can be, else in double quotes.

    Undecodable bytes of a file name come as surrogates (PEP 383) and are written as one `\\xHH` each.
    """
    if _BARE.match(value):
        return value
    out = []
    for char in value:
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif not char.isprintable():
            out.extend(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def unquote(text: str) -> str:
    """The value between double quotes, escapes undone. Raises ValueError on an unknown escape."""
    if "\\" not in text:
        return text
    out = bytearray()
    position = 0
    while position < len(text):
        if text[position] != "\\":
            stop = text.find("\\", position)
            stop = len(text) if stop < 0 else stop
            out += text[position:stop].encode("utf-8", "surrogateescape")
            position = stop
            continue
        found = _UNESCAPE.match(text, position)
        if found is None:
            raise ValueError(f"unknown escape in {text!r}")
        out += bytes([int(found[1], 16)]) if found[1] else _UNESCAPES[found[2]].encode()
        position = found.end()
    return out.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Record:
    """One line: a kind and named values, all of them text. Use `make` to build one from Python values."""

    kind: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, kind: str, /, **fields: object) -> Record:
        """A record from Python values: bytes become hexadecimal, True and False 1 and 0, None is left out.

        An underscore in a name stands for itself; a trailing one is dropped, so that `flags_` or `from_` can be said.
        """
        values = {}
        for name, value in fields.items():
            if value is None:
                continue
            if isinstance(value, bool):
                text = str(int(value))
            elif isinstance(value, (bytes, bytearray)):
                text = value.hex()
            else:
                text = str(value)
            values[name.rstrip("_")] = text
        return cls(kind, values)

    def __getitem__(self, name: str) -> str:
        try:
            return self.fields[name]
        except KeyError:
            raise HostileImage(f"record {self.kind!r}", f"has no {name!r}") from None

    def get(self, name: str, default: str | None = None) -> str | None:
        return self.fields.get(name, default)

    def int(self, name: str) -> int:
        """A number, decimal or with 0x. Raises HostileImage when it is none."""
        try:
            return int(self[name], 0)
        except ValueError:
            raise HostileImage(f"record {self.kind!r}", f"{name} is not a number: {self[name]!r}") from None

    def bytes(self, name: str) -> bytes:
        """Bytes from hexadecimal. Raises HostileImage when it is none."""
        try:
            return bytes.fromhex(self[name])
        except ValueError:
            raise HostileImage(f"record {self.kind!r}", f"{name} is not hexadecimal") from None

    def flags(self, name: str) -> frozenset[str]:
        """A flag set joined by `|`; `-` is the empty one."""
        return frozenset() if self[name] == "-" else frozenset(self[name].split("|"))

    def line(self) -> str:
        """The line, without its newline."""
        return self._line

    @cached_property
    def _line(self) -> str:
        # Made once: a record that is the same from capture to capture is written in each.
        if not _WORD.match(self.kind):
            raise ValueError(f"not a record kind: {self.kind!r}")
        parts = [self.kind]
        for name, value in self.fields.items():
            if not _WORD.match(name):
                raise ValueError(f"not a record key: {name!r}")
            parts.append(f"{name}={quote(value)}")
        return " ".join(parts)


def format_records(records: Iterable[Record]) -> bytes:
    """The text of a file of records."""
    return "".join(record.line() + "\n" for record in records).encode("utf-8", "surrogateescape")


def parse_records(data: bytes, where: str) -> tuple[Record, ...]:
    """The records of a file. `where` names the file in errors. Raises HostileImage."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HostileImage(where, f"not UTF-8: {error}") from None
    if text and not text.endswith("\n"):
        raise HostileImage(where, "does not end with a newline")
    return tuple(_parse_line(line, f"{where}:{number}") for number, line in enumerate(text.split("\n")[:-1], 1))


def _parse_line(line: str, where: str) -> Record:
    kind, _, _ = line.partition(" ")
    if not _WORD.match(kind):
        raise HostileImage(where, f"not a record: {line[:80]!r}")
    fields: dict[str, str] = {}
    position = len(kind)
    while position < len(line):
        found = _TOKEN.match(line, position)
        if found is None:
            raise HostileImage(where, f"not a record, from column {position + 1}: {line[position : position + 40]!r}")
        name = found[1]
        if name in fields:
            raise HostileImage(where, f"{name!r} stands twice")
        try:
            fields[name] = unquote(found[2]) if found[2] is not None else found[3]
        except ValueError as error:
            raise HostileImage(where, str(error)) from None
        position = found.end()
    return Record(kind, fields)
