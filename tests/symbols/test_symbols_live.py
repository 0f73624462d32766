"""Variables and stacks of real programs, out of images of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TARGETS, Target, compile_target
from tests.live_snapshot import snapshot_of, stop_in_read
from vcsimg.errors import AccessError, MissingPackage, SymbolError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.snapshot import Snapshot
from vcsimg.symbols import Symbols, program, variable

Start = Callable[..., Target]
pytest.importorskip("drgn")


@pytest.fixture(scope="module")
def snapshot() -> Iterator[Snapshot]:
    library = compile_target("export_library", "-shared", "-fPIC")
    target = Target(compile_target("export_threads", str(library)), "2", "16")
    target.line()
    stop_in_read(target)
    yield snapshot_of(target.pid)
    target.end()


@pytest.fixture(scope="module")
def symbols(snapshot: Snapshot) -> Symbols:
    return Symbols(snapshot, snapshot.processes[0])


@pytest.mark.parametrize(
    ("expression", "type_", "value"),
    [
        ("answer", "int", 42),
        ("hidden", "volatile int", 4711),
        ("'export_threads.c'::hidden", "volatile int", 4711),
        ("account.name", "char [16]", "alice"),
        ("account.balance", "double", 12.5),
        ("account.colour", "enum colour", "GREEN"),
        ("account.flags", "unsigned int", 3),
        ("account.mode", "unsigned int", 17),
        ("account.history", "long [4]", [1, 2, 3, 5]),
        ("account.history[3]", "long", 5),
        ("account.list->next->value", "int", 22),
        ("*account.list->next", "struct node", {"value": 22, "next": 0}),
        ("((struct node *)&second)->value", "int", 22),
        ("vectors", "volatile double [4]", [1.5, 2.5, 3.5, 4.5]),
        ("library_point.x", "int", 7),
        ("library_private", "long", 55 + 4711 * 3),
        ("library_counter", "int", 1003),
        ("GREEN", "enum colour", "GREEN"),
    ],
)
def test_values(symbols: Symbols, expression: str, type_: str, value: object) -> None:
    found = symbols.variable(expression)
    assert (found.type, found.value) == (type_, value)


def test_a_whole_struct(snapshot: Snapshot) -> None:
    found = variable(snapshot, snapshot.processes[0], "account")
    plain = json.loads(json.dumps(found.value))
    assert list(plain) == ["name", "balance", "colour", "flags", "mode", "list", "history"]
    assert plain["history"] == [1, 2, 3, 5]
    assert '.name = (char [16])"alice"' in found.text
    assert ".colour = (enum colour)GREEN" in found.text
    assert found.size == 72


def test_where_a_variable_lies(symbols: Symbols, snapshot: Snapshot) -> None:
    found = symbols.variable("answer")
    assert found.address is not None
    memory = snapshot.processes[0].memory
    assert memory is not None
    assert memory.read(found.address, found.size or 0) == (42).to_bytes(4, "little")
    assert symbols.variable("&answer").value == found.address
    for nowhere in ("&answer", "GREEN", "account.mode"):
        assert symbols.variable(nowhere).address is None


def test_a_pointer_to_text_shows_it(symbols: Symbols) -> None:
    assert '"hello, core"' in symbols.variable("greeting").text


def test_a_function_has_an_address_and_no_size(symbols: Symbols) -> None:
    found = symbols.variable("wait_below")
    assert found.address is not None
    assert found.size is None
    assert found.type == "long (long depth)"


def test_stacks_of_all_threads(symbols: Symbols, snapshot: Snapshot) -> None:
    stacks = symbols.stacks()
    assert [stack.tid for stack in stacks] == sorted(thread.tid for thread in snapshot.processes[0].threads)
    names = [[frame.name for frame in stack.frames] for stack in stacks]
    assert sorted(stack.count("wait_below") for stack in names) == [2, 4, 5]
    assert "main" in names[0]
    assert all("worker" in stack for stack in names[1:])
    frame = next(frame for frame in stacks[0].frames if frame.name == "library_wait")
    assert frame.source is not None
    assert frame.source.startswith(str(TARGETS / "export_library.c") + ":")
    assert snapshot.processes[0].threads[0].registers["rip"] == stacks[0].frames[0].pc


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("nonesuch", "no variable nonesuch"),
        ("'other.c'::hidden", "no variable hidden in other.c"),
        ("account.nope", "no member"),
        ("answer.x", "struct"),
        ("*answer", "not an array or pointer"),
        ("&5", "address"),
        ("(struct nonesuch *)0", "nonesuch"),
        ("account + 1", "understood"),
    ],
)
def test_mistakes_are_explained(symbols: Symbols, expression: str, reason: str) -> None:
    with pytest.raises(SymbolError, match=reason) as caught:
        symbols.variable(expression)
    assert caught.value.expression == expression


def test_an_address_without_content_is_named(symbols: Symbols) -> None:
    with pytest.raises(AccessError) as caught:
        symbols.variable("account.list->next->next->value")
    assert caught.value.address == 0


def test_another_capture_of_the_process(symbols: Symbols, snapshot: Snapshot) -> None:
    address = symbols.variable("answer").address
    process = snapshot.processes[0]
    memory = process.memory
    assert memory is not None

    class Later:
        def read(self, start: int, length: int) -> bytes:
            data = bytearray(memory.read(start, length))
            for at, byte in enumerate((43).to_bytes(4, "little"), address or 0):
                if start <= at < start + length:
                    data[at - start] = byte
            return bytes(data)

    symbols.look_at(replace(process, memory=Later()))
    assert symbols.variable("answer").value == 43
    symbols.look_at(process)
    assert symbols.variable("answer").value == 42


def test_the_drgn_program_itself(snapshot: Snapshot) -> None:
    made = program(snapshot, snapshot.processes[0])
    assert made["account"].list.next.value.value_() == 22
    assert made.main_thread().tid == snapshot.processes[0].pid


@pytest.mark.parametrize("flags", [(), ("-no-pie",), ("-static",), ("-Wl,--build-id=none",)])
def test_programs_that_are_gone(start: Start, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Whatever way it is linked: the image has all that is needed."""
    made = tmp_path / "program"
    library = tmp_path / "library.so"
    options = ["-g", "-O1", "-pthread", *flags]
    if "-static" in flags:
        sources = [TARGETS / "export_threads.c", TARGETS / "export_library.c"]
    else:
        subprocess.run(["cc", *options, "-shared", "-fPIC", "-o", library, TARGETS / "export_library.c"], check=True)
        sources = [TARGETS / "export_threads.c", library]
    subprocess.run(["cc", *options, "-o", made, *sources], check=True)
    target = start(made, 1, 16)
    target.line()
    stop_in_read(target)
    snapshot = snapshot_of(target.pid, frozen=True)
    target.end()
    made.write_bytes(b"built anew")
    library.unlink(missing_ok=True)
    symbols = Symbols(snapshot, snapshot.processes[0])
    assert symbols.variable("account.list->next->value").value == 22
    assert symbols.variable("library_point.y").value == -9
    names = [{frame.name for frame in stack.frames} for stack in symbols.stacks()]
    assert {"main", "wait_below", "library_wait"} <= names[0]
    assert {"worker", "wait_below", "library_wait"} <= names[1]


def test_a_program_without_debugging_information_is_named(start: Start, tmp_path: Path) -> None:
    made = tmp_path / "stripped"
    subprocess.run(["cc", "-O1", "-pthread", "-s", "-o", made, TARGETS / "history_steps.c"], check=True)
    target = start(made)
    target.line()
    target.stop()
    snapshot = snapshot_of(target.pid)
    symbols = Symbols(snapshot, snapshot.processes[0])
    assert str(made) in symbols.missing
    with pytest.raises(SymbolError, match="no variable counter") as caught:
        symbols.variable("counter")
    assert str(made) in (caught.value.remedy or "")


def test_an_image_without_files_uses_those_of_the_system(snapshot: Snapshot) -> None:
    process = snapshot.processes[0]
    memory = process.memory
    assert isinstance(memory, ImageMemory)
    bare = replace(process, mapped=tuple(replace(file, sha256=None) for file in process.mapped))
    assert variable(replace(snapshot, files={}, processes=(bare,)), bare, "account.balance").value == 12.5


def test_without_drgn_the_error_says_what_to_install(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    with pytest.raises(MissingPackage) as caught:
        variable(snapshot, snapshot.processes[0], "answer")
    assert caught.value.remedy == "Install it with: pip install 'vcsimg[symbols]'"


def test_a_process_without_memory_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(AccessError):
        variable(snapshot, replace(snapshot.processes[0], memory=None), "answer")
