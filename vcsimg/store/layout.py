"""Where things stand in a commit's tree: docs/image-format.md, "The tree of a commit"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile

from vcsimg.image.units import PIECE_SHIFT

FORMAT = 4
FORMAT_TEXT = f"vcsimg {FORMAT}\n".encode()

NOT_SECTIONS = frozenset({"map", "mapped", "threads", "memory", "unreadable"})
"""Names below proc/<pid>/ that have a meaning of their own."""

_FLAT = re.compile(r"(?:[0-9a-f]{12}|[1-9a-f][0-9a-f]{12,15})\Z")
HIGH = re.compile(r"(?:0|[1-9a-f][0-9a-f]{0,7})\Z")
"""An address divided by 2^32, as a name."""
DIGIT = re.compile(r"[0-9a-f]\Z")
_LAST = re.compile(r"[0-9a-f][08]\Z")
_BLOB = re.compile(r"([0-9a-f]{8})\.(key[0-3]?|xor|patch)\Z")
_SECTION = re.compile(r"[a-z][a-z0-9_-]*\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}\Z")

FEW_PIECES = 64
"""Of a process with so many, all directories stand side by side."""
FLAT, DEEP = 1, 3
"""Names from memory/ down to a piece's directory, of few pieces and of many."""


def piece_path(number: int, depth: int) -> tuple[str, ...]:
    """The names below memory/ of a piece's directory."""
    address = number << PIECE_SHIFT
    if depth == FLAT:
        return (f"{address:012x}",)
    return (f"{address >> 32:x}", f"{address >> 28 & 15:x}", f"{address >> 20 & 255:02x}")


def flat_number(name: str, shift: int) -> int | None:
    """The address that one name spells, divided by 2^shift, or None when it spells none, or no multiple of that."""
    number, rest = divmod(int(name, 16), 1 << shift) if _FLAT.match(name) else (0, 1)
    return number if not rest else None


def piece_number(names: tuple[str, ...]) -> int | None:
    """The piece that a path below memory/ spells, or None when it spells none."""
    if len(names) == FLAT:
        return flat_number(names[0], PIECE_SHIFT)
    if len(names) != DEEP or not HIGH.match(names[0]) or not DIGIT.match(names[1]) or not _LAST.match(names[2]):
        return None
    return int("".join(names), 16) >> (PIECE_SHIFT - 20)


KEYS = ("key0", "key1", "key2", "key3")
XOR, PATCH = "xor", "patch"
"""What a blob of a chain is: the content of a quarter of the piece, or what leads from one content to another, both ways or forward only."""


def is_key(kind: str) -> bool:
    """Whether such a blob is a keyframe."""
    return kind.startswith("key")


def keyframes(kinds: Iterable[str]) -> int:
    """How many links of a chain, of these kinds in their order, are its keyframes: the first ones."""
    return sum(1 for _ in takewhile(is_key, kinds))


def blob_name(version: int, kind: str) -> str:
    """The name of a keyframe, delta or patch."""
    return f"{version:08x}.{kind}"


def parse_blob_name(name: str) -> tuple[int, str] | None:
    """(version, kind), or None when it is no name of a blob."""
    found = _BLOB.match(name)
    return (int(found[1], 16), found[2]) if found else None


def is_section(name: str) -> bool:
    """Whether a file below proc/<pid>/ is a section."""
    return bool(_SECTION.match(name)) and name not in NOT_SECTIONS


def parse_id(name: str) -> int | None:
    """A pid or tid from a directory's or file's name."""
    return int(name) if _NUMBER.match(name) else None


def file_path(sha256: str) -> tuple[str, str, str]:
    """The names of a mapped file's directory."""
    return ("files", sha256[:2], sha256)


def chunk_name(index: int) -> str:
    """The name of the index-th 2 MiB of a file."""
    return f"{index:08d}.zst"


def chunk_directory(index: int) -> str:
    """The name of the index-th 2 MiB of a file, where they are a directory of parts."""
    return f"{index:08d}"


def part_name(index: int) -> str:
    """The name of the index-th part of a chunk."""
    return f"{index:02d}.zst"
