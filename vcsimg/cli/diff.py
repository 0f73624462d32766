"""`vcsimg diff`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.options import find_captures, json_option, repository_option
from vcsimg.cli.output import Column, Output, Part, region_name, stdout
from vcsimg.errors import VcsimgError

if TYPE_CHECKING:
    from vcsimg.history import Change
    from vcsimg.store import Repository

_STYLES = {"-": "red", "+": "green"}


@click.command()
@click.argument("a", default="HEAD")
@click.argument("b", required=False)
@click.option("--stat", is_flag=True, help="Only counts: pages and bytes by region, and in total.")
@click.option("--hex", "as_hex", is_flag=True, help="The changed bytes too: before and after, 16 a line.")
@repository_option
@json_option("One JSON document; with --stat one of counts.")
def diff(a: str, b: str | None, stat: bool, as_hex: bool, repo: Path | None, as_json: bool) -> None:
    """Say what differs from capture A to capture B (or A..B): regions, pages, bytes, registers, files and all else.

    A alone means what that capture changed: the difference from the capture before it to A. Without A, the newest.
    """
    from vcsimg.history import diff as differences
    from vcsimg.history import format

    if stat and as_hex:
        raise click.UsageError("--stat and --hex exclude one another.")
    out = stdout()
    with find_captures(repo) as repository:
        one, two = _sides(repository, a, b)
        changes = differences(repository.load(one), repository.load(two), lambda pid: repository.changed_pieces(one, two, pid))
        if as_json and stat:
            _print_counts(out, one, two, changes)
        elif as_json:
            _print_json(out, one, two, changes)
        elif stat and out.terminal:
            _print_table(out, changes)
        else:
            for line in format.stat(changes) if stat else format.text(changes, with_bytes=as_hex):
                out.line((line, _STYLES.get(line[0], "")))


def _sides(repository: Repository, a: str, b: str | None) -> tuple[str, str]:
    """The two captures that are meant."""
    if b is None and ".." in a:
        a, _, b = a.partition("..")
        a, b = a or "HEAD", b.removeprefix(".") or "HEAD"
    if b is not None:
        return repository.resolve(a), repository.resolve(b)
    capture = repository.capture(a)
    if not capture.parents:
        raise VcsimgError(
            f"capture {capture.id[:12]} is the first of its history: there is none before it",
            remedy="Name two captures: vcsimg diff A B.",
        )
    return capture.parents[0], capture.id


def _print_json(out: Output, one: str, two: str, changes: Iterable[Change]) -> None:
    """Written change by change: a document of a gigabyte shall not be held in memory."""
    out.stream.write(json.dumps({"from": one, "to": two, "changes": []})[:-2])
    for index, change in enumerate(changes):
        out.stream.write((",\n" if index else "\n") + json.dumps(change.to_json()))
    out.stream.write("]}\n")


def _print_counts(out: Output, one: str, two: str, changes: Iterable[Change]) -> None:
    from vcsimg.history import format

    counts, totals = format.count(changes)
    regions = [
        {
            "pid": found.pid,
            "start": found.region.start,
            "end": found.region.end,
            "perms": found.region.perms,
            "name": found.region.name,
            "kinds": list(found.change.kinds) if found.change else [],
            "pages": found.pages,
            "bytes": found.bytes,
        }
        for found in counts
    ]
    out.json({"from": one, "to": two, "regions": regions, "totals": asdict(totals)})


def _print_table(out: Output, changes: Iterable[Change]) -> None:
    from vcsimg.history import format

    counts, totals = format.count(changes)
    rows: list[list[Part]] = [
        [
            str(found.pid),
            f"{found.region.start:x}",
            found.region.perms,
            region_name(found.region),
            str(found.pages),
            str(found.bytes),
            (format.describe_kinds(found.change), "yellow") if found.change else "",
        ]
        for found in counts
    ]
    columns = (
        Column("process"),
        Column("start", style="cyan"),
        Column("access"),
        Column("region"),
        Column("pages", right=True),
        Column("bytes", right=True),
        Column("map", fold=True),
    )
    out.table(columns, rows)
    out.line(
        ", ".join(f"{number} {name[:-1] if number == 1 else name}" for name, number in asdict(totals).items() if number)
        or "nothing",
        " changed",
    )
