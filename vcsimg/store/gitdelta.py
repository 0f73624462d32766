"""git's own delta between two versions of a tree or a text (gitformat-pack(5), "Deltified representation").

Inside a pack only, invisible to whoever reads objects: a tree in which one of thirty entries changed then takes the bytes
of that entry. Both sides are cut into tokens (a tree's entries, a text's lines); runs of tokens that the base has are copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TREE_TOKEN = re.compile(rb"[0-9]+ [^\0]+\0.{20}", re.DOTALL)
_TEXT_TOKEN = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_INSERT_MOST = 127
_COPY_MOST = 0xFFFFFF


def make(base: bytes, target: bytes, *, tree: bool) -> bytes:
    """The delta that turns `base` into `target`."""
    pattern = _TREE_TOKEN if tree else _TEXT_TOKEN
    olds, news = pattern.findall(base), pattern.findall(target)
    if len(olds) == len(news):
        return _token_by_token(base, olds, target, news)
    places: dict[bytes, int] = {}
    for found in pattern.finditer(base):
        places.setdefault(found[0], found.start())
    out = bytearray(_size(len(base)) + _size(len(target)))
    copy_start = copy_end = -1
    literal = bytearray()
    for found in pattern.finditer(target):
        token = found[0]
        if copy_end >= 0 and base.startswith(token, copy_end):
            copy_end += len(token)
            continue
        place = places.get(token)
        if copy_end >= 0:
            out += _copy(copy_start, copy_end - copy_start)
            copy_end = -1
        if place is None:
            literal += token
        else:
            out += _insert(literal)
            literal.clear()
            copy_start, copy_end = place, place + len(token)
    if copy_end >= 0:
        out += _copy(copy_start, copy_end - copy_start)
    out += _insert(literal)
    return bytes(out)


def _token_by_token(base: bytes, olds: list[bytes], target: bytes, news: list[bytes]) -> bytes:
    """The delta between versions of equally many tokens: of each only what differs between its first and last bytes."""
    out = bytearray(_size(len(base)) + _size(len(target)))
    start = position = 0  # base[start:position] is to be copied
    for old, new in zip(olds, news, strict=True):
        if old != new:
            head = _alike(old, new)
            tail = _alike(old[head:][::-1], new[head:][::-1])
            out += _copy(start, position + head - start)
            out += _insert(new[head : len(new) - tail])
            start = position + len(old) - tail
        position += len(old)
    out += _copy(start, position - start)
    return bytes(out)


def _alike(one: bytes, two: bytes) -> int:
    """How many bytes at their beginnings are equal."""
    least = min(len(one), len(two))
    return next((place for place in range(least) if one[place] != two[place]), least)


def apply(base: bytes, delta: bytes) -> bytes:
    """The target of a delta. Raises ValueError when it does not fit the base."""
    expected, position = _read_size(delta, 0)
    size, position = _read_size(delta, position)
    out = bytearray()
    while position < len(delta):
        op = delta[position]
        position += 1
        if op & 0x80:
            offset = length = 0
            for shift in range(4):
                if op >> shift & 1:
                    offset |= delta[position] << 8 * shift
                    position += 1
            for shift in range(3):
                if op >> 4 + shift & 1:
                    length |= delta[position] << 8 * shift
                    position += 1
            length = length or 0x10000
            out += base[offset : offset + length]
        else:
            out += delta[position : position + op]
            position += op
    if expected != len(base) or len(out) != size:
        raise ValueError("a delta that does not fit its base")
    return bytes(out)


def _size(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_size(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position


def _copy(offset: int, length: int) -> bytes:
    out = bytearray()
    while length:
        part = min(length, _COPY_MOST)
        op, body = 0x80, bytearray()
        for shift in range(4):
            byte = offset >> 8 * shift & 0xFF
            if byte:
                op |= 1 << shift
                body.append(byte)
        for shift in range(3):
            byte = part >> 8 * shift & 0xFF
            if byte:
                op |= 0x10 << shift
                body.append(byte)
        out.append(op)
        out += body
        offset += part
        length -= part
    return bytes(out)


def _insert(data: bytes | bytearray) -> bytes:
    return b"".join(bytes((len(part),)) + part for part in _parts(data))


def _parts(data: bytes | bytearray) -> Iterator[bytes | bytearray]:
    for start in range(0, len(data), _INSERT_MOST):
        yield data[start : start + _INSERT_MOST]
