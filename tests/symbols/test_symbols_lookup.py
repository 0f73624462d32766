"""Variables of one name in a program and its libraries: which one is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.symbols.building import MAIN, WAIT, build, symbols_of
from vcsimg.errors import SymbolError
from vcsimg.symbols import Symbols

pytest.importorskip("drgn")

LIBRARY = """
struct shared { int a; long b; };
struct shared shared = { 1, 2 };
int count = 900;
int outer = 901;
static long quiet = 902;
static long both = 903;
static long lonely = 904;
long *library(void) { both += lonely; return &quiet; }
"""
LIBRARY_2 = "static long both = 905; static long outer = 906; long *library_2(void) { both += outer - 906; return &both; }"
PROGRAM = f"""
#include <unistd.h>
struct shared {{ int a; long b; }};
extern struct shared shared;
extern int other(void);
extern long *library(void), *library_2(void);
int state = 42;
static int count = 43;
static int twice = 44;
static int quiet = 45;
{MAIN}
int main(void)
{{
    optind = 5;
    shared.a = 77;
    count += (library() == 0) + (library_2() == 0) + (other() == 0) + (environ == 0) + (twice == 0) + (quiet == 0);
    {WAIT}
}}
"""
OTHER = "int twice = 46; int other(void) { return twice; }"


@pytest.fixture(scope="module", params=["-pie", "-no-pie"])
def symbols(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    folder = tmp_path_factory.mktemp("lookup")
    library = build(folder / "library.so", {"lib.c": LIBRARY, "lib2.c": LIBRARY_2}, "-shared", "-fPIC")
    compile_as = "-fPIE" if request.param == "-pie" else "-fno-pie"
    return symbols_of(
        build(folder / "program", {"main.c": PROGRAM, "other.c": OTHER}, library, "-D_GNU_SOURCE", compile_as, request.param)
    )


@pytest.mark.parametrize(
    ("expression", "type_", "value"),
    [
        ("state", "int", 42),  # libc has statics of this name
        ("count", "int", 43),  # a static of the program, before a library's global
        ("twice", "int", 46),  # the program's global, before its static
        ("'main.c'::twice", "int", 44),
        ("quiet", "int", 45),
        ("outer", "int", 901),  # a library's global, before a static
        ("lonely", "long", 904),
        ("'lib2.c'::both", "long", 905),
        ("'lib.c'::count", "int", 900),
        ("'lib2.c'::outer", "long", 906),
    ],
)
def test_the_program_comes_first(symbols: Symbols, expression: str, type_: str, value: int) -> None:
    found = symbols.variable(expression)
    assert (found.type, found.value) == (type_, value)


def test_statics_of_several_libraries_are_named(symbols: Symbols) -> None:
    with pytest.raises(SymbolError, match="several files have a static variable both") as caught:
        symbols.variable("both")
    assert "lib.c" in caught.value.reason
    assert "lib2.c" in caught.value.reason
    assert caught.value.remedy == "Name the file: 'lib.c'::both"


def test_a_constant_of_a_library_does_not_hide_a_variable(tmp_path: Path) -> None:
    """libm has folded constants of this name, which lie nowhere."""
    source = MAIN + "#include <math.h>\nvolatile double x = 2; int d = 7; int main(void) { x = exp(x) + pow(x, x); " + WAIT + " }"
    found = symbols_of(build(tmp_path / "program", {"main.c": source}, "-lm")).variable("d")
    assert (found.type, found.value, found.address is not None) == ("int", 7, True)


def test_a_static_program_has_many_statics(tmp_path: Path) -> None:
    symbols = symbols_of(
        build(tmp_path / "program", {"main.c": MAIN + "int state = 42; int main(void) { " + WAIT + " }"}, "-static")
    )
    assert symbols.variable("state").value == 42


def test_statics_of_cpp(tmp_path: Path) -> None:
    source = """
    #include <cstdio>
    #include <unistd.h>
    static int state = 5;
    namespace pool { int first = 7; static int hidden = 8; namespace { int inner = 9; } }
    int main() { pool::first += pool::hidden - 8 + pool::inner - 9 + state - 5; """
    symbols = symbols_of(build(tmp_path / "program", {"main.cc": source + WAIT + " }"}, compiler="c++"))
    assert [symbols.variable(name).value for name in ("state", "pool::first", "pool::hidden")] == [5, 7, 8]


def test_copies_of_library_variables_are_taken_for_them(symbols: Symbols) -> None:
    """The program got a copy of them, and all use that."""
    assert symbols.variable("optind").value == 5
    assert symbols.variable("shared").value == symbols.variable("'lib.c'::shared").value == {"a": 77, "b": 2}
    address, data = symbols.encode("optind", "9")
    assert (address, data) == (symbols.variable("optind").address, b"\x09\0\0\0")
    assert symbols.program.module(address) == symbols.program.main_module()


def test_a_variable_that_is_only_declared(symbols: Symbols) -> None:
    found = symbols.variable("environ")
    assert found.type == "char **"
    assert found.value == symbols.variable("__environ").value != 0
    assert "=" in str(symbols.variable("environ[0]").text)


def test_a_static_of_a_library_is_not_taken_for_a_global_without_type(tmp_path: Path) -> None:
    library = build(tmp_path / "library.so", {"lib.c": LIBRARY}, "-shared", "-fPIC")
    source = MAIN + "extern long *library(void); int lonely = 5; int main(void) { library(); " + WAIT + " }"
    symbols = symbols_of(build(tmp_path / "program", {"main.c": source}, library, "-g0"))
    with pytest.raises(SymbolError, match="no variable lonely") as caught:
        symbols.variable("lonely")
    assert str(tmp_path / "program") in (caught.value.remedy or "")
    assert symbols.variable("'lib.c'::lonely").value == 904


def test_files_of_one_name_in_several_libraries(tmp_path: Path) -> None:
    libraries = []
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        source = f"static int same = {value}; int {folder}(void) {{ return same++; }}"
        libraries.append(build(tmp_path / folder / "library.so", {"util.c": source}, "-shared", "-fPIC"))
    source = MAIN + "extern int one(void), two(void); int main(void) { if (one() + two() == 0) return 1; " + WAIT + " }"
    symbols = symbols_of(build(tmp_path / "program", {"main.c": source}, *libraries))
    with pytest.raises(SymbolError, match=r"several files have a static variable same: util\.c") as caught:
        symbols.variable("same")
    assert caught.value.remedy == "Name the file: 'FOLDER/util.c'::same"
    assert [symbols.variable(f"'{folder}/util.c'::same").value for folder in ("one", "two")] == [2, 3]
