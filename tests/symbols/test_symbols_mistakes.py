"""What is said about variables that cannot be shown or written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.symbols.building import MAIN, WAIT, build, symbols_of
from vcsimg.errors import SymbolError
from vcsimg.symbols import Symbols

pytest.importorskip("drgn")

PROGRAM = f"""
#include <stdint.h>
{MAIN}
struct {{ unsigned a : 3, b : 5, c : 24; int whole; }} bits = {{ 1, 2, 3, 4 }};
__thread int per_thread = 5;
unsigned char small = 6;
signed char less = 7;
_Bool flag = 1;
int64_t wide = 8;
enum level {{ LOW = 1, HIGH = 2 }} level = LOW;
enum {{ MINUS = -1, PLUS }} sign = PLUS;
int *pointer = &bits.whole;
static inline int inside(void) {{ static int kept = 9; int local = 10; return kept++ + local; }}
int main(void) {{ inside(); per_thread++; {WAIT} }}
"""


@pytest.fixture(scope="module")
def symbols(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    return symbols_of(build(tmp_path_factory.mktemp("mistakes") / "program", {"main.c": PROGRAM}))


def test_bit_fields(symbols: Symbols) -> None:
    found, whole = symbols.variable("bits.c"), symbols.variable("bits")
    assert whole.address is not None
    assert (found.value, found.address, found.bits) == (3, None, (whole.address + 1, 24))
    assert whole.bits is None
    for refused in (found.place, lambda: symbols.encode("bits.c", "3")):
        with pytest.raises(SymbolError, match="bit field of 24 bits") as caught:
            refused()
        assert f"{whole.address + 1:#x}" in (caught.value.remedy or "")
    assert symbols.variable("bits.whole").place() == (whole.address + 4, 4)


def test_what_lies_nowhere_has_no_place(symbols: Symbols) -> None:
    for expression in ("LOW", "&small"):
        with pytest.raises(SymbolError, match="lies nowhere"):
            symbols.variable(expression).place()


def test_thread_local_variables_are_left_to_debuggers(symbols: Symbols) -> None:
    for expression in ("per_thread", "'main.c'::per_thread", "&per_thread"):
        with pytest.raises(SymbolError, match="per_thread is thread-local") as caught:
            symbols.variable(expression)
        assert "vcsimg checkout" in (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["kept", "local", "nonesuch"])
def test_what_is_not_searched_is_said(symbols: Symbols, name: str) -> None:
    with pytest.raises(SymbolError, match=f"no variable {name}") as caught:
        symbols.variable(name)
    assert "statics inside functions, are not searched" in (caught.value.remedy or "")
    assert "debugging information" not in (caught.value.remedy or "")


def test_the_library_that_has_the_variable_is_named(tmp_path: Path) -> None:
    libraries = [
        build(tmp_path / f"{name}.so", {f"{name}.c": f"int {name} = 1;"}, "-shared", "-fPIC", "-Wl,--build-id=none")
        for name in ("one", "two")
    ]
    for library in libraries:
        subprocess.run(["strip", library], check=True)
    source = MAIN + "extern int one, two; int main(void) { two += one - 1; " + WAIT + " }"
    symbols = symbols_of(build(tmp_path / "program", {"main.c": source}, *libraries, "-fPIC", "-pie"))
    for name, lacking in (("two", ["two.so"]), ("nonesuch", ["one.so", "two.so"])):
        with pytest.raises(SymbolError) as caught:
            symbols.variable(name)
        remedy = caught.value.remedy or ""
        assert [each for each in ("one.so", "two.so") if each in remedy] == lacking


@pytest.mark.parametrize(
    ("expression", "value", "range_"),
    [
        ("small", "-1", "0 to 255"),
        ("small", "256", "0 to 255"),
        ("less", "128", "-128 to 127"),
        ("less", "-129", "-128 to 127"),
        ("flag", "2", "0 to 1"),
        ("flag", "-1", "0 to 1"),
        ("wide", "0x8000000000000000", "-9223372036854775808 to 9223372036854775807"),
        ("level", "-1", "0 to 4294967295"),
        ("sign", "0x80000000", "-2147483648 to 2147483647"),
        ("pointer", "-1", "0 to 18446744073709551615"),
    ],
)
def test_values_out_of_range_are_refused(symbols: Symbols, expression: str, value: str, range_: str) -> None:
    with pytest.raises(SymbolError, match=f"{value} is no value for .*: it takes {range_}$"):
        symbols.encode(expression, value)


@pytest.mark.parametrize(
    ("expression", "value", "data"),
    [
        ("small", "255", b"\xff"),
        ("less", "-128", b"\x80"),
        ("flag", "0", b"\0"),
        ("wide", "-1", b"\xff" * 8),
        ("level", "HIGH", b"\2\0\0\0"),
        ("sign", "MINUS", b"\xff" * 4),
        ("pointer", "0xffffffffffffffff", b"\xff" * 8),
    ],
)
def test_values_within_range_are_written(symbols: Symbols, expression: str, value: str, data: bytes) -> None:
    assert symbols.encode(expression, value) == (symbols.variable(expression).address, data)
