"""Types that drgn does not read, and C++."""

from __future__ import annotations

import json
import math

import pytest

from tests.symbols.building import WAIT, build, symbols_of
from vcsimg.errors import SymbolError
from vcsimg.symbols import Symbols

pytest.importorskip("drgn")

CPP = """
#include <complex.h>
#include <cstdio>
#include <unistd.h>
#include <vector>
struct Exact { int a; long double l; int b; } exact = { 1, -2.5L, 3 };
Exact *pointer = &exact;
long double numbers[3] = { 1, 0, 1e-4000L };
long double huge = 1e4000L, infinite = 1.0L / 0;
__float128 quad = 1;
int number = 9;
int &reference = number;
struct Refers { int &r; int z; } refers = { number, 4 };
struct A { int x; }; struct D : A { int y; } derived;
struct Holder { long first; D inner; } holder;
struct V { virtual ~V() {} int q = 4; }; struct Virtual : virtual V { int r = 5; } with_virtual;
struct Polymorphic { virtual ~Polymorphic() {} char c; long l; } plain_polymorphic;
struct Empty {}; struct FromEmpty : Empty { char c; int g; } from_empty;
struct Padded { char c; long l; char d; } padded;
struct Bits { unsigned a : 3, b : 5, c : 24; bool t; } bits = { 1, 2, 3, true };
struct FromBits : Bits { unsigned d : 2; } from_bits;
Empty empty;
D *to_derived = &derived;
std::vector<int> list;
int main() { derived.x = 7; derived.y = 8; """


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    return symbols_of(build(tmp_path_factory.mktemp("cpp") / "program", {"main.cc": CPP + WAIT + " }"}, compiler="c++"))


def test_long_doubles_are_decoded(cpp: Symbols) -> None:
    found = cpp.variable("exact")
    assert found.text == "(Exact){\n\t.a = (int)1,\n\t.l = (long double)-2.5,\n\t.b = (int)3,\n}"
    assert found.value == {"a": 1, "l": -2.5, "b": 3}
    assert cpp.variable("exact.l").value == -2.5
    assert cpp.variable("numbers").value == [1.0, 0.0, 0.0]
    assert cpp.variable("huge").value == "<not supported>"
    assert cpp.variable("infinite").value == math.inf
    assert cpp.variable("quad").text.endswith("<not supported>")
    json.dumps(found.value)


def test_bit_fields_of_cpp(cpp: Symbols) -> None:
    assert cpp.variable("bits").value == {"a": 1, "b": 2, "c": 3, "t": True}


def test_a_pointer_to_what_cannot_be_read(cpp: Symbols) -> None:
    found = cpp.variable("pointer")
    assert found.value == cpp.variable("&exact").value
    assert f"{found.value:#x}" in found.text


def test_members_that_are_references(cpp: Symbols) -> None:
    found = cpp.variable("refers")
    assert found.text == "(Refers){\n\t.r = <not supported>,\n\t.z = (int)4,\n}"
    assert found.value == {"r": "<not supported>", "z": 4}
    assert cpp.variable("refers.z").value == 4
    for name in ("reference", "refers.r"):
        with pytest.raises(SymbolError, match="drgn cannot read it"):
            cpp.variable(name)
    with pytest.raises(SymbolError, match="drgn cannot read it"):
        cpp.encode("reference", "4")


def test_only_bytes_are_written_to_long_doubles(cpp: Symbols) -> None:
    with pytest.raises(SymbolError, match="only hex:BYTES"):
        cpp.encode("exact.l", "1.5")
    assert cpp.encode("exact.l", "hex:00")[1] == b"\0"
    assert cpp.encode("exact.b", "5")[1] == b"\x05\0\0\0"


@pytest.mark.parametrize(
    ("expression", "classes"),
    [
        ("derived", ("D",)),
        ("to_derived", ("D",)),
        ("holder", ("D",)),
        ("list", ("vector<int, std::allocator<int> >",)),
        ("with_virtual", ("Virtual",)),
        ("plain_polymorphic", ()),
        ("from_empty", ()),
        ("padded", ()),
        ("empty", ()),
        ("exact", ()),
        ("bits", ()),
        ("from_bits", ("FromBits",)),
        ("refers", ()),
        ("derived.y", ()),
    ],
)
def test_classes_with_members_that_are_not_shown_are_named(cpp: Symbols, expression: str, classes: tuple[str, ...]) -> None:
    assert cpp.variable(expression).without_bases == classes


def test_members_of_a_first_base_class_by_a_cast(cpp: Symbols) -> None:
    assert cpp.variable("((A *)&derived)->x").value == 7
