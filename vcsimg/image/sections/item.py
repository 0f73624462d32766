"""Items: typed records. Each class in this package is one kind of record; its fields are the record's keys, in order.

The type of a field says how its value stands in the text:

    int                     decimal
    Hex                     0x and lowercase hexadecimal
    Octal                   0o and octal digits (permissions)
    Limit                   decimal, or "unlimited" for 2^64 - 1
    bool                    1 or 0
    bytes                   lowercase hexadecimal, two digits a byte
    str                     the text itself
    Flags(NAMES)            names joined by |, then one 0x number for bits without a name; - when none is set
    Choice(NAMES)           a name, or the decimal number of a value without one
    tuple[int, ...]         decimal numbers joined by commas; - when there is none
    … | None                the key is absent when None
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from vcsimg.errors import HostileImage
from vcsimg.image.records import Record
from vcsimg.image.snapshot import Section


@dataclass(frozen=True)
class Coding:
    """How a value is written, and read again; `read` raises ValueError for text that `write` never gives."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


def _write_hex(value: int) -> str:
    return hex(value)


def _read_number(text: str) -> int:
    return int(text, 0)


def _write_bool(value: bool) -> str:
    return "1" if value else "0"


def _read_bool(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _write_numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values)) or "-"


def _read_numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(int(word) for word in text.split(","))


Hex = Annotated[int, Coding(_write_hex, _read_number)]
Octal = Annotated[int, Coding(oct, _read_number)]


def flags(names: Mapping[int, str], *, mode: Mapping[int, str] | None = None) -> Coding:
    """The coding of a set of bits. `names`: names of bits, or of several bits that count only together (those come first).

    `mode`: names of the values of a bit field; one of them always stands first (O_RDONLY is 0). Its mask is all their bits.
    """
    numbers = {name: bits for bits, name in names.items()}
    mask = 0
    for bits, name in (mode or {}).items():
        numbers[name] = bits
        mask |= bits

    def write(value: int) -> str:
        words = []
        if mode is not None and value & mask in mode:
            words.append(mode[value & mask])
            value &= ~mask
        for bits, name in names.items():
            if value & bits == bits:
                words.append(name)
                value &= ~bits
        if value:
            words.append(hex(value))
        return "|".join(words) or "-"

    def read(text: str) -> int:
        value = 0
        for word in () if text == "-" else text.split("|"):
            value |= numbers[word] if word in numbers else int(word, 16)
        return value

    return Coding(functools.lru_cache(4096)(write), read)


def choice(names: Mapping[int, str]) -> Coding:
    """The coding of one of several values."""
    numbers = {name: value for value, name in names.items()}
    return Coding(lambda value: names.get(value) or str(value), lambda text: numbers[text] if text in numbers else int(text, 0))


UNLIMITED = (1 << 64) - 1
Limit = Annotated[int, choice({UNLIMITED: "unlimited"})]

_PLAIN: dict[Any, Coding] = {
    int: Coding(str, int),
    bool: Coding(_write_bool, _read_bool),
    str: Coding(str, str),
    bytes: Coding(bytes.hex, bytes.fromhex),
    tuple[int, ...]: Coding(_write_numbers, _read_numbers),
}


class Item:
    """Base of all items. A subclass is a frozen dataclass with `class … (Item, kind="…")`."""

    __slots__ = ()
    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str | None = None, **options: object) -> None:
        super().__init_subclass__(**options)
        if kind is not None:
            cls.kind = kind

    def record(self) -> Record:
        """The item as a line of text."""
        fields = {}
        for name, write, _, _ in _codings(type(self)):
            value = getattr(self, name)
            if value is not None:
                fields[name] = write(value)
        return Record(self.kind, fields)

    @classmethod
    def parse(cls, record: Record) -> Self:
        """The item that a record says. Raises HostileImage for a missing, unknown or malformed key."""
        values: dict[str, Any] = {}
        unread = set(record.fields)
        for name, _, read, optional in _codings(cls):
            unread.discard(name)
            if name not in record.fields and optional:
                values[name] = None
                continue
            text = record[name]
            try:
                values[name] = read(text)
            except (ValueError, KeyError):
                raise HostileImage(f"record {record.kind!r}", f"{name} cannot be {text[:80]!r}") from None
        if unread:
            raise HostileImage(f"record {record.kind!r}", f"unknown key {min(unread)!r}")
        return cls(**values)


Kind = TypeVar("Kind", bound=Item)


def select(section: Iterable[Record], kind: type[Kind]) -> list[Kind]:
    """All items of one kind in a section, in order."""
    return [kind.parse(record) for record in section if record.kind == kind.kind]


def records(items: Iterable[Item]) -> Section:
    """Items as the records of a section."""
    return tuple(item.record() for item in items)


_Field = tuple[str, Callable[[Any], str], Callable[[str], Any], bool]
_known: dict[object, tuple[_Field, ...]] = {}


def _codings(cls: type[Item]) -> tuple[_Field, ...]:
    """For each field of an item: name, how it is written and read, may be absent."""
    found = _known.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            coding, optional = _coding(hints[field.name])
            fields.append((field.name, coding.write, coding.read, optional))
        found = _known[cls] = tuple(fields)
    return found


def _coding(hint: Any) -> tuple[Coding, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
        return _coding(inner)[0], True
    if typing.get_origin(hint) is Annotated:
        (coding,) = (part for part in hint.__metadata__ if isinstance(part, Coding))
        return coding, False
    return _PLAIN[hint], False
