"""Expressions of C over variables of an image: what a debugger's `print` takes, without calls, assignments or arithmetic.

    expression  =  ("*" | "&" | "(" TYPE ")") expression  |  postfix
    postfix     =  primary  ("." NAME | "->" NAME | "[" NUMBER "]")*
    primary     =  NAME ("::" NAME)*  |  'FILE'::NAME  |  NUMBER  |  "(" expression ")"
    TYPE        =  NAME+ "*"*

Parsed here and never given to Python's eval: an expression may come from anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vcsimg.errors import SymbolError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)(?![A-Za-z_0-9])|(?P<file>'[^']+')|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>->|::|[*&().\[\]-]))"
)
_DEPTH = 100
"""Nested deeper than this, an expression is not meant seriously."""


@dataclass(frozen=True, slots=True)
class Name:
    """A variable; `file`: (part of) the name of the source file that it is in, for statics."""

    name: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Number:
    value: int


@dataclass(frozen=True, slots=True)
class Dereference:
    of: Expression


@dataclass(frozen=True, slots=True)
class AddressOf:
    of: Expression


@dataclass(frozen=True, slots=True)
class Cast:
    type: str
    of: Expression


@dataclass(frozen=True, slots=True)
class Member:
    """`.` or `->`: each is taken for the other where it fits, as debuggers do."""

    of: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Item:
    of: Expression
    index: int


Expression = Name | Number | Dereference | AddressOf | Cast | Member | Item


def parse(text: str) -> Expression:
    """The meaning of an expression. Raises SymbolError."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            found = _TOKEN.match(stripped, position)
            if found is None or found.lastgroup is None:
                raise SymbolError(text, f"cannot be understood from {stripped[position : position + 20]!r} on")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            position = found.end()
        self._at = 0

    def whole(self) -> Expression:
        out = self._unary(0)
        if self._at < len(self._tokens):
            raise SymbolError(self._text, f"{self._tokens[self._at][1]!r} was not expected")
        return out

    def _unary(self, depth: int) -> Expression:
        if depth > _DEPTH:
            raise SymbolError(self._text, "nested too deeply")
        if self._take("*"):
            return Dereference(self._unary(depth + 1))
        if self._take("&"):
            return AddressOf(self._unary(depth + 1))
        cast = self._cast()
        return Cast(cast, self._unary(depth + 1)) if cast else self._postfix(depth)

    def _cast(self) -> str | None:
        """A type between parentheses, if one comes and an operand stands behind it."""
        if self._peek() != ("sign", "("):
            return None
        end = self._at + 1
        words: list[str] = []
        while self._peek(end)[0] == "name" or (words and self._peek(end) == ("sign", "*")):
            words.append(self._peek(end)[1])
            if words[-1] != "*" and "*" in words:
                return None
            end += 1
        following = self._peek(end + 1)
        operand = following[0] in ("name", "number", "file") or following in (("sign", "("), ("sign", "*"), ("sign", "&"))
        if not words or self._peek(end) != ("sign", ")") or not operand:
            return None
        self._at = end + 1
        return " ".join(words)

    def _postfix(self, depth: int) -> Expression:
        out = self._primary(depth)
        while True:
            if self._take(".") or self._take("->"):
                out = Member(out, self._expect("name"))
            elif self._take("["):
                sign = -1 if self._take("-") else 1
                out = Item(out, sign * _number(self._expect("number")))
                self._expect("sign", "]")
            else:
                return out

    def _primary(self, depth: int) -> Expression:
        if self._take("("):
            out = self._unary(depth + 1)
            self._expect("sign", ")")
            return out
        kind, word = self._peek()
        if kind == "number":
            self._at += 1
            return Number(_number(word))
        if kind == "file":
            self._at += 1
            self._expect("sign", "::")
            return Name(self._expect("name"), word[1:-1])
        name = self._expect("name")
        while self._take("::"):
            name += "::" + self._expect("name")
        return Name(name)

    def _peek(self, at: int | None = None) -> tuple[str, str]:
        at = self._at if at is None else at
        return self._tokens[at] if at < len(self._tokens) else ("end", "")

    def _take(self, sign: str) -> bool:
        taken = self._peek() == ("sign", sign)
        self._at += taken
        return taken

    def _expect(self, kind: str, word: str | None = None) -> str:
        found = self._peek()
        if found[0] != kind or (word is not None and found[1] != word):
            wanted = repr(word) if word else {"name": "a name", "number": "a number"}[kind]
            raise SymbolError(self._text, f"{wanted} was expected, not {repr(found[1]) if found[1] else 'the end'}")
        self._at += 1
        return found[1]


def _number(word: str) -> int:
    """Hexadecimal with 0x, else decimal."""
    return int(word, 16 if word[:2] in ("0x", "0X") else 10)
