"""The syntax of expressions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.errors import SymbolError
from vcsimg.symbols.expression import AddressOf, Cast, Dereference, Item, Member, Name, Number, parse


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", Name("a")),
        (" a . b -> c [ 3 ] ", Item(Member(Member(Name("a"), "b"), "c"), 3)),
        ("*a.b", Dereference(Member(Name("a"), "b"))),
        ("(*a).b", Member(Dereference(Name("a")), "b")),
        ("**a", Dereference(Dereference(Name("a")))),
        ("&a[0x10]", AddressOf(Item(Name("a"), 16))),
        ("a[-1]", Item(Name("a"), -1)),
        ("(a)", Name("a")),
        ("(struct node *)0x7f00", Cast("struct node *", Number(0x7F00))),
        ("*(unsigned long **)p", Dereference(Cast("unsigned long * *", Name("p")))),
        ("((struct node *)p)->next", Member(Cast("struct node *", Name("p")), "next")),
        ("(t)(p)", Cast("t", Name("p"))),
        ("'src/main.c'::hidden", Name("hidden", "src/main.c")),
        ("pool::first", Name("pool::first")),
    ],
)
def test_meaning(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "a.",
        "a->",
        "a[",
        "a[b]",
        "a[1",
        "(a",
        "a)",
        "1a",
        "a+b",
        "f()",
        "a=1",
        "*",
        "& &",
        "'x",
        "'x'::",
        "a; b",
        "é",
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(SymbolError):
        parse(text)


def test_deep_nesting_is_refused() -> None:
    for text in ("*" * 10_000 + "a", "(" * 10_000 + "a" + ")" * 10_000):
        with pytest.raises(SymbolError, match="deeply"):
            parse(text)


@settings(deadline=None, database=None)
@given(st.text("ab*&()[].->:' 01", max_size=20) | st.text(max_size=10))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(SymbolError):
        parse(text)
