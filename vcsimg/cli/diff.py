"""`vcsimg diff`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from vcsimg.cli.options import find_repository, json_option, repository_option
from vcsimg.cli.output import Column, Output, Part, count, region_name, size, stdout
from vcsimg.errors import VcsimgError
from vcsimg.history import (
    Change,
    PageChange,
    ProcessChange,
    RecordChange,
    RegionChange,
    RegistersChange,
    ThreadChange,
)
from vcsimg.history import (
    diff as differences,
)

if TYPE_CHECKING:
    from vcsimg.image.region import Region
    from vcsimg.store import Repository

_RUNS_SHOWN = 4
_ROW = 16


@click.command()
@click.argument("a", default="HEAD")
@click.argument("b", required=False)
@click.option("--stat", is_flag=True, help="Only counts: pages and bytes by region, then what else.")
@click.option("--hex", "as_hex", is_flag=True, help="The bytes too: before and after, 16 a line.")
@repository_option
@json_option("One JSON document; with --stat one of counts.")
def diff(a: str, b: str | None, stat: bool, as_hex: bool, repo: Path | None, as_json: bool) -> None:
    """Say what differs from capture A to capture B (or A..B): regions, pages, bytes, registers, files and all else.

    A alone means what that capture changed: the difference from the capture before it to A. Without A, the newest.
    """
    if stat and as_hex:
        raise click.UsageError("--stat and --hex exclude one another.")
    out = stdout()
    with find_repository(repo) as repository:
        one, two = _sides(repository, a, b)
        snapshots = repository.load(one), repository.load(two)
        changes = differences(*snapshots, lambda pid: repository.changed_pieces(one, two, pid))
        if stat:
            totals = _Totals.of(changes)
            if as_json:
                out.json({"from": one, "to": two, **totals.as_dict()})
            else:
                totals.print(out)
        elif as_json:
            _print_json(out, one, two, changes)
        else:
            out.line(("--- ", "red"), one[:12])
            out.line(("+++ ", "green"), two[:12])
            _print_changes(out, changes, as_hex)


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


def _print_changes(out: Output, changes: Iterable[Change], as_hex: bool) -> None:
    for key, group in groupby(changes, _heading):
        out.line((key, "bold"))
        for change in group:
            _print_change(out, change, as_hex)


def _heading(change: Change) -> str:
    """Changes of one heading follow one another."""
    match change:
        case PageChange():
            return f"process {change.pid} memory {_place(change.region)}"
        case RecordChange() if change.pid is None:
            return change.section
        case RecordChange() if change.tid is not None:
            return f"process {change.pid} thread {change.tid}"
        case RecordChange():
            return f"process {change.pid} {change.section}"
        case ThreadChange() | RegistersChange():
            return f"process {change.pid} thread {change.tid}"
        case RegionChange():
            return f"process {change.pid} map"
        case ProcessChange():
            return f"process {change.pid}"


def _place(region: Region) -> str:
    return f"{region.start:x}-{region.end:x} {region.perms} {region_name(region)}"


def _print_change(out: Output, change: Change, as_hex: bool) -> None:
    match change:
        case PageChange():
            _print_page(out, change, as_hex)
        case RegionChange():
            out.line(f"  {', '.join(change.kinds)}")
            _print_sides(out, [_place(region) for region in change.before], [_place(region) for region in change.after])
        case RegistersChange():
            for name, (before, after) in change.general.items():
                out.line(f"  {name:<8} ", (f"{before:#x}", "red"), " → ", (f"{after:#x}", "green"))
            if change.vector:
                out.line("  vector registers")
        case RecordChange():
            sides = [[record.line()] if record is not None else [] for record in (change.before, change.after)]
            _print_sides(out, *sides)
        case ThreadChange() | ProcessChange():
            out.line(f"  {change.kind}")


def _print_sides(out: Output, before: list[str], after: list[str]) -> None:
    for line in before:
        out.line((f"  - {line}", "red"))
    for line in after:
        out.line((f"  + {line}", "green"))


def _print_page(out: Output, change: PageChange, as_hex: bool) -> None:
    runs = change.runs()
    parts: list[Part] = [(f"  {change.address:x}", "cyan"), f"  {count(change.changed_bytes, 'byte')}"]
    if as_hex:
        out.line(*parts)
        for row in _changed_rows(change):
            start = row * _ROW
            for sign, data, style in (("-", change.before, "red"), ("+", change.after, "green")):
                out.line((f"  {sign} {_hex_row(change.address + start, data[start : start + _ROW])}", style))
        return
    shown = ", ".join(f"{start & 0xFFF:03x}-{end - change.address:03x}" for start, end in runs[:_RUNS_SHOWN])
    more = f" and {count(len(runs) - _RUNS_SHOWN, 'more run', 'more runs')}" if len(runs) > _RUNS_SHOWN else ""
    out.line(*parts, f" at {shown}{more}")


def _changed_rows(change: PageChange) -> list[int]:
    before, after = (np.frombuffer(side, np.uint8).reshape(-1, _ROW) for side in (change.before, change.after))
    return [int(row) for row in np.flatnonzero((before != after).any(axis=1))]


def _hex_row(address: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{address:x}  {data[:8].hex(' ')}  {data[8:].hex(' ')}  |{text}|"


@dataclass
class _Totals:
    """Counts of a difference."""

    pages: dict[tuple[int, str, str], list[int]] = field(default_factory=dict)
    """(pid, region's name, its access) → [pages, bytes]."""
    regions: list[str] = field(default_factory=list)
    threads: int = 0
    processes: int = 0
    records: dict[str, int] = field(default_factory=dict)
    """Section → records that were added, removed or changed."""

    @classmethod
    def of(cls, changes: Iterable[Change]) -> _Totals:
        totals = cls()
        for change in changes:
            totals._add(change)
        return totals

    def _add(self, change: Change) -> None:
        match change:
            case PageChange():
                entry = self.pages.setdefault((change.pid, region_name(change.region), change.region.perms), [0, 0])
                entry[0] += 1
                entry[1] += change.changed_bytes
            case RegionChange():
                self.regions.extend(change.kinds)
            case RegistersChange() | ThreadChange():
                self.threads += 1
            case RecordChange():
                self.records[change.section] = self.records.get(change.section, 0) + 1
            case ProcessChange():
                self.processes += 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "memory": [
                {"pid": pid, "region": name, "perms": perms, "pages": pages, "bytes": changed}
                for (pid, name, perms), (pages, changed) in self.pages.items()
            ],
            "regions": {kind: self.regions.count(kind) for kind in sorted(set(self.regions))},
            "threads": self.threads,
            "processes": self.processes,
            "records": self.records,
        }

    def print(self, out: Output) -> None:
        if self.pages:
            several = len({pid for pid, _, _ in self.pages}) > 1
            columns = [Column("pages", right=True), Column("bytes", right=True), Column("access"), Column("region")]
            out.table(columns, self._rows(several))
        pages, changed = (sum(entry[index] for entry in self.pages.values()) for index in (0, 1))
        parts = [f"{count(pages, 'page')}, {size(changed)}"]
        parts += [f"{count(self.regions.count(kind), 'region')} {_VERBS.get(kind, kind)}" for kind in sorted(set(self.regions))]
        if self.processes:
            parts.append(count(self.processes, "process", "processes"))
        if self.threads:
            parts.append(count(self.threads, "thread"))
        parts += [f"{section} {number}" for section, number in self.records.items()]
        out.line("; ".join(parts))

    def _rows(self, several: bool) -> Iterator[list[Part]]:
        for (pid, name, perms), (pages, changed) in self.pages.items():
            yield [str(pages), str(changed), perms, f"{pid} {name}" if several else name]


_VERBS = {"protection": "with other protection", "name": "renamed", "flags": "with other flags", "backing": "with another file"}
