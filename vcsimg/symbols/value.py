"""Values of variables as text and as plain data, with what drgn cannot read left out."""

from __future__ import annotations

import contextlib
from typing import Any

from vcsimg.symbols.program import load_drgn

NOT_SUPPORTED = "<not supported>"
_FLOAT_SIZES = (4, 8)
"""Of those that drgn reads."""
_POINTER_SIZE = 8
_LARGEST_ALIGNMENT = 16
_MANTISSA_BITS = 64
_EXPONENT_BIAS = 16383


def text(found: Any) -> str:
    """As a C initializer. Where drgn cannot read a part, that part is "<not supported>"."""
    drgn = load_drgn()
    try:
        return str(found)
    except (NotImplementedError, drgn.BadDataError):
        pass
    type_, kinds = _unaliased(found.type_), drgn.TypeKind
    if type_.kind == kinds.POINTER:
        return str(found.format_(dereference=False))
    name = found.type_.type_name()
    if type_.kind in (kinds.STRUCT, kinds.UNION, kinds.CLASS):
        members = (f"\t.{member.name} = {_member_text(found, member.name)},\n" for member in type_.members or () if member.name)
        return f"({name}){{\n{''.join(members)}}}"
    if type_.kind == kinds.ARRAY:
        return f"({name}){{ {', '.join(text(found[index]) for index in range(type_.length or 0))} }}"
    return f"({name}){_long_double(found)}"


def _member_text(found: Any, name: str) -> str:
    try:
        return text(found.member_(name)).replace("\n", "\n\t")
    except load_drgn().BadDataError:
        return NOT_SUPPORTED


def plain(found: Any) -> Any:
    """Plain data: text for arrays of char that end with a NUL and are UTF-8; names for enumerators; None for void and functions;
    "<not supported>" for what drgn cannot read."""
    kinds = load_drgn().TypeKind
    type_ = _unaliased(found.type_)
    if type_.kind in (kinds.VOID, kinds.FUNCTION):
        return None
    if type_.kind in (kinds.STRUCT, kinds.UNION, kinds.CLASS):
        return {member.name: _plain_member(found, member.name) for member in type_.members or () if member.name}
    if type_.kind == kinds.ARRAY:
        return _plain_array(found, type_)
    try:
        value = found.value_()
    except NotImplementedError:
        return _long_double(found)
    if type_.kind == kinds.ENUM:
        return next((each.name for each in type_.enumerators or () if each.value == value), value)
    return value


def _plain_member(found: Any, name: str) -> Any:
    try:
        return plain(found.member_(name))
    except load_drgn().BadDataError:
        return NOT_SUPPORTED


def _plain_array(found: Any, type_: Any) -> Any:
    kinds = load_drgn().TypeKind
    element = _unaliased(type_.type)
    if type_.length is None:
        return []
    if element.kind == kinds.INT and element.size == 1 and "char" in element.name:
        data, nul, rest = found.to_bytes_().partition(b"\0")
        if nul and not any(rest):
            with contextlib.suppress(UnicodeDecodeError):
                return data.decode()
    if element.kind in (kinds.INT, kinds.BOOL, kinds.POINTER) or (element.kind == kinds.FLOAT and element.size in _FLOAT_SIZES):
        return found.value_()
    return [plain(found[index]) for index in range(type_.length)]


def _long_double(found: Any) -> float | str:
    """The value of x86's long double (80 bits), rounded to a float; drgn does not read it. Other types are not supported."""
    type_ = _unaliased(found.type_)
    if type_.kind != load_drgn().TypeKind.FLOAT or "long double" not in type_.name or "complex" in type_.name:
        return NOT_SUPPORTED
    data = found.to_bytes_()
    mantissa, high = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:10], "little")
    sign, exponent = -1.0 if high >> 15 else 1.0, high & 0x7FFF
    if exponent == 0x7FFF:
        return sign * float("inf") if mantissa << 1 & (1 << 64) - 1 == 0 else float("nan")
    try:
        return sign * _scaled(mantissa, max(exponent, 1) - _EXPONENT_BIAS - (_MANTISSA_BITS - 1))
    except OverflowError:
        return NOT_SUPPORTED


def _scaled(mantissa: int, exponent: int) -> float:
    """mantissa * 2**exponent. Raises OverflowError."""
    return float(mantissa << exponent) if exponent >= 0 else mantissa / (1 << -exponent)


def without_bases(type_: Any) -> tuple[str, ...]:
    """Names of the C++ classes in a type whose members do not cover them: drgn does not know of base classes."""
    names: dict[str, None] = {}
    _collect(type_, names, through_pointer=True)
    return tuple(names)


def _collect(type_: Any, names: dict[str, None], *, through_pointer: bool = False) -> None:
    drgn = load_drgn()
    type_ = _unaliased(type_)
    if type_.kind == drgn.TypeKind.ARRAY or (through_pointer and type_.kind == drgn.TypeKind.POINTER):
        _collect(type_.type, names)
    if (
        type_.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.CLASS)
        or type_.language != drgn.Language.CPP
        or not type_.is_complete()
    ):
        return
    if _has_hole(type_):
        names.setdefault(type_.type_name())
    for member in type_.members:
        with contextlib.suppress(drgn.BadDataError):
            _collect(member.type, names)


def _has_hole(type_: Any) -> bool:
    """Whether more of a class is without members than alignment explains. The first member of one without bases is at its beginning.

    A bit field counts as large as its type: a base class that is as small is not seen beside it.
    """
    end, largest = 0, 1
    for member in sorted(type_.members, key=lambda member: member.bit_offset):
        size, alignment = _size_and_alignment(member)
        start = member.bit_offset // 8  # of a bit field, where its first bits are
        if start - end >= (alignment if end else 1):
            return True
        end, largest = max(end, start + size), max(largest, alignment)
    return bool(type_.size - end >= largest) and (end > 0 or type_.size > 1)


def _size_and_alignment(member: Any) -> tuple[int, int]:
    drgn = load_drgn()
    try:
        type_ = _unaliased(member.type)
        size = drgn.sizeof(type_)
    except (drgn.BadDataError, TypeError):
        return _POINTER_SIZE, _POINTER_SIZE  # a reference, or an array without length
    while type_.kind == drgn.TypeKind.ARRAY:
        type_ = _unaliased(type_.type)
    if type_.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION, drgn.TypeKind.CLASS):
        inner = [_size_and_alignment(each)[1] for each in type_.members or ()]
        return size, _POINTER_SIZE if _is_hidden(type_) else max(inner, default=1)
    return size, min(drgn.sizeof(type_), _LARGEST_ALIGNMENT)


def _is_hidden(type_: Any) -> bool:
    """Whether a class has members that drgn does not know."""
    return bool(type_.language == load_drgn().Language.CPP) and _has_hole(type_)


def _unaliased(type_: Any) -> Any:
    """A type behind its typedefs."""
    while type_.kind == load_drgn().TypeKind.TYPEDEF:
        type_ = type_.type
    return type_
