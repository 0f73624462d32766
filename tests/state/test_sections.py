"""The description of the sections, and the classes that write and read them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.errors import HostileImage
from vcsimg.image.records import Record, format_records, parse_records
from vcsimg.image.sections import HOST, SECTIONS, THREAD, files, names, sockets
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.thread import Pending

PAGE = Path(__file__).parents[2] / "docs" / "sections.md"
ALL = {kind for kinds in SECTIONS.values() for kind in kinds} | set(THREAD) | set(HOST)


def documented() -> dict[str, dict[str, list[str]]]:
    """Keys by kind by heading of the page."""
    found: dict[str, dict[str, list[str]]] = {}
    section, kind = "", ""
    for line in PAGE.read_text().splitlines():
        if heading := re.match(r"## (?:Section `(\w+)`|(Threads)|File `(host)`)", line):
            section = next(word for word in heading.groups() if word)
            found[section] = {}
        elif heading := re.match(r"### `(\w+)`", line):
            kind = heading[1]
            found[section][kind] = []
        elif row := re.match(r"\| `(\w+)` \|", line):
            found[section][kind].append(row[1])
    return found


@pytest.mark.parametrize("section", [*SECTIONS, "Threads", "host"])
def test_every_kind_and_key_is_documented_in_order(section: str) -> None:
    kinds = {**SECTIONS, "Threads": THREAD, "host": HOST}[section]
    elsewhere = {"pending", "credentials", "seccomp_filter"} if section == "Threads" else set()
    keys = {
        kind.kind: [field.name for field in dataclasses.fields(kind) if kind is not sockets.Options or field.name == "fd"]
        for kind in kinds
        if kind.kind not in elsewhere
    }
    assert documented()[section] == keys


def test_kinds_of_a_section_have_different_names() -> None:
    for kinds in (*SECTIONS.values(), THREAD, HOST):
        assert len({kind.kind for kind in kinds}) == len(kinds)


SAMPLES = {
    "str": st.text(),
    "int": st.integers(-(2**63), 2**64 - 1),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=20),
    "tuple": st.lists(st.integers(0, 2**32)).map(tuple),
    "number": st.integers(0, 2**64 - 1),
}


def sample(hint: str) -> st.SearchStrategy[object]:
    base = hint.removesuffix(" | None")
    strategy = SAMPLES.get("tuple" if base.startswith("tuple") else base, SAMPLES["number"])
    return strategy | st.none() if base != hint else strategy


@pytest.mark.parametrize("kind", sorted(ALL - {sockets.Options}, key=lambda kind: (kind.__module__, kind.__name__)))
def test_every_item_reads_back_as_it_was_written(kind: type[Item]) -> None:
    @settings(database=None, deadline=None, max_examples=30)
    @given(st.builds(kind, **{field.name: sample(str(field.type)) for field in dataclasses.fields(kind)}))
    def check(item: Item) -> None:
        (record,) = parse_records(format_records([item.record()]), "test")
        assert kind.parse(record) == item

    check()


def test_options_of_sockets_read_back() -> None:
    options = sockets.Options(5, (("so_keepalive", "1"), ("so_linger", "0000")))
    assert sockets.Options.parse(options.record()) == options


def test_flags_are_written_by_name_and_unknown_ones_as_a_number() -> None:
    seals = files.Sealed(3, 0x1 | 0x8 | 0x1000)
    assert seals.record()["seals"] == "F_SEAL_SEAL|F_SEAL_WRITE|0x1000"
    assert files.Sealed(3, 0).record()["seals"] == "-"


@pytest.mark.parametrize(
    "fields",
    [
        {"signal": "SIGNOTHING"},
        {"signal": "SIGTERM", "info": "abc"},
        {"signal": "SIGTERM", "surprise": "1"},
        {"code": "1"},
        {"signal": "SIGTERM", "code": "0x"},
    ],
)
def test_a_hostile_record_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(HostileImage):
        Pending.parse(Record("pending", fields))


HEADERS = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <time.h>
#include <elf.h>
#include <linux/auxvec.h>
#include <linux/sched.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/personality.h>
#include <sys/timerfd.h>
#include <asm/signal.h>
"""
OWN_WORDS = {"O_LARGEFILE", "SA_UNSUPPORTED", "SA_EXPOSE_TAGBITS", "O_ACCMODE"}


@pytest.mark.parametrize(
    "table",
    [
        "SIGNALS",
        "SIGACTION_FLAGS",
        "ALTSTACK_FLAGS",
        "OPEN_FLAGS",
        "EPOLL_EVENTS",
        "INOTIFY_EVENTS",
        "SEALS",
        "CLOCKS",
        "TIMERFD_FLAGS",
    ],
)
def test_names_stand_for_the_numbers_of_the_systems_headers(table: str, tmp_path: Path) -> None:
    entries = {name: number for number, name in getattr(names, table).items() if name not in OWN_WORDS}
    checks = "\n".join(
        f'#ifdef {name}\n_Static_assert((unsigned)({name}) == {number}u, "{name}");\n#endif' for name, number in entries.items()
    )
    source = tmp_path / "names.c"
    source.write_text(HEADERS.replace("#include <asm/signal.h>\n", "") + checks + "\n")
    ran = subprocess.run(["cc", "-fsyntax-only", source], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
