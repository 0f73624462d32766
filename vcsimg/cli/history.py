"""`vcsimg blame` and `vcsimg search`: which capture changed some bytes, and where bytes occur."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcsimg.cli.options import PID, choose_process, find_captures, json_option, repository_option
from vcsimg.cli.output import Column, Part, moment, region_name, stdout
from vcsimg.errors import VcsimgError

if TYPE_CHECKING:
    from vcsimg.history import BytesChange
    from vcsimg.image.snapshot import Process, Snapshot

_PLACE = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)(?:\+(0x[0-9a-fA-F]+|[0-9]+))?\Z")
_MOST = 1 << 20
_SHOWN = 16
_WORDS = (1, 2, 4, 8)


class Place(click.ParamType[tuple[int, int]]):
    """ADDRESS or ADDRESS+LENGTH, decimal or 0x…; 8 bytes if no length is given."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value[0], value[1]
        found = _PLACE.match(value)
        if found is None:
            self.fail(f"{value!r} is not ADDRESS or ADDRESS+LENGTH, such as 0x7f1234400000+16", param, ctx)
        address, length = int(found[1], 0), int(found[2] or "8", 0)
        if not 0 < length <= _MOST or address + length > 1 << 64:
            self.fail(f"{value!r} is no range of 1 to {_MOST} bytes", param, ctx)
        return address, length


@click.command()
@click.argument("words", nargs=-1, metavar="[ADDRESS[+LENGTH]] [REVISION]")
@click.option("--variable", metavar="EXPRESSION", help="Instead of a place: where this variable lies in REVISION.")
@click.option("-a", "--all", "everything", is_flag=True, help="Every capture that changed it, newest first, not only the last.")
@click.option("--process", "pid", type=PID, metavar="PID", help="In this process of a tree, not in its root.")
@repository_option
@json_option("One JSON document: address, length, and a list of changes with commit, before and after (hexadecimal).")
def blame(
    words: tuple[str, ...],
    variable: str | None,
    everything: bool,
    pid: int | None,
    repo: Path | None,
    as_json: bool,
) -> None:
    """Say which capture last changed some bytes of memory, looking back from REVISION.

    Memory is read only of captures in which something near these bytes changed.
    """
    from vcsimg.history import range_history

    place = None
    if variable is None:
        if not words:
            raise click.UsageError("Give either ADDRESS[+LENGTH] or --variable EXPRESSION.")
        place, words = Place().convert(words[0], None, None), words[1:]
    elif words and _PLACE.match(words[0]) and (len(words) > 1 or words[0].startswith("0x")):
        raise click.UsageError("Give either ADDRESS[+LENGTH] or --variable EXPRESSION.")
    if len(words) > 1:
        raise click.UsageError(f"One REVISION, not {len(words)}.")
    revision = words[0] if words else "HEAD"
    with find_captures(repo) as repository:
        commit = repository.resolve(revision)
        snapshot = repository.load(commit)
        process = choose_process(snapshot, pid, commit)
        address, length = place if place is not None else _place_of(snapshot, process, variable or "")
        changes = list(islice(range_history(repository, commit, process.pid, address, length), None if everything else 1))
        captures = [repository.capture(change.capture) for change in changes]
    if not changes:
        raise VcsimgError(
            f"process {process.pid} has nothing at {address:#x} in capture {commit[:12]}, and had nothing before",
            remedy=f"`vcsimg show {commit[:12]}` lists its mappings; all {length} bytes from there on must be in them.",
        )
    if as_json:
        stdout().json({"address": address, "length": length, "changes": [_as_dict(change) for change in changes]})
        return
    for change, capture in zip(changes, captures, strict=True):
        parts: list[Part] = [(capture.id[:12], "yellow"), f"  {moment(capture.time)}  {_text(change)}  ", capture.subject]
        stdout().line(*parts)


def _place_of(snapshot: Snapshot, process: Process, expression: str) -> tuple[int, int]:
    from vcsimg.symbols import variable

    address, size = variable(snapshot, process, expression).place()
    return address, min(size, _MOST)


def _as_dict(change: BytesChange) -> dict[str, Any]:
    return {
        "commit": change.capture,
        "before": change.before.hex() if change.before is not None else None,
        "after": change.after.hex() if change.after is not None else None,
    }


def _text(change: BytesChange) -> str:
    return f"{_value(change.before)} → {_value(change.after)}"


def _value(data: bytes | None) -> str:
    """A word as a number, anything longer as its first bytes."""
    if data is None:
        return "nothing"
    if len(data) in _WORDS:
        return f"{int.from_bytes(data, 'little'):#x}"
    return data[:_SHOWN].hex(" ", -4) + (" …" if len(data) > _SHOWN else "")


@click.command()
@click.argument("pattern")
@click.argument("revision", default="HEAD")
@click.option("--hex", "as_hex", is_flag=True, help="PATTERN is bytes in hexadecimal: 'de ad be ef'.")
@click.option("-n", "--number", type=click.IntRange(min=1), metavar="N", help="At most N places.")
@click.option("--first", is_flag=True, help="Since when: in the first capture that has it, supposing that all after it do.")
@repository_option
@json_option("One JSON document: commit, and a list of pid, address and region.")
def search(pattern: str, revision: str, as_hex: bool, number: int | None, first: bool, repo: Path | None, as_json: bool) -> int:
    """Find bytes in the memory of a capture: text (as UTF-8), or --hex.

    The exit status is 1 if there are none. Pages of mapped files are looked through too, if their content is in the image.
    """
    from vcsimg.history import first_where
    from vcsimg.history import search as occurrences

    wanted = _bytes(pattern, as_hex)
    with find_captures(repo) as repository:
        commit = repository.resolve(revision)
        if first:
            line = [capture.id for capture in repository.log(commit)][::-1]
            commit = first_where(repository, line, lambda snapshot: next(occurrences(snapshot, wanted), None) is not None) or commit
        snapshot = repository.load(commit)
        places = [(snapshot.process(pid), address) for pid, address in islice(occurrences(snapshot, wanted), number)]
    named = [(process.pid, address, process.regions.find(address)) for process, address in places]
    if as_json:
        found = [
            {"pid": pid, "address": address, "region": region_name(region) if region else None} for pid, address, region in named
        ]
        stdout().json({"commit": commit, "places": found})
        return int(not places)
    if places and first:
        stdout().line("first in capture ", (commit[:12], "yellow"))
    rows: list[list[Part]] = [
        [str(pid), (f"{address:x}", "cyan"), region.perms if region else "", region_name(region) if region else ""]
        for pid, address, region in named
    ]
    if rows:
        columns = (Column("process"), Column("address", right=True), Column("access"), Column("region", fold=True))
        stdout().table(columns, rows)
    return int(not places)


def _bytes(pattern: str, as_hex: bool) -> bytes:
    try:
        wanted = bytes.fromhex(pattern) if as_hex else pattern.encode("utf-8", "surrogateescape")
    except ValueError:
        raise click.UsageError(f"{pattern!r} is not hexadecimal bytes, such as 'de ad be ef'.") from None
    if not wanted:
        raise click.UsageError("Nothing to search for.")
    return wanted
