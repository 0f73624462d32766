"""Differences as plain text, in a form that stays the same: colours and widths of terminals are the command line's.

stat    one line a region: what became of it, how many pages and bytes changed
text    the regions, pages, threads, registers and records that changed, one line each
hex     the same, with the changed bytes of each page, before and after
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vcsimg.history.changes import (
    Change,
    PageChange,
    ProcessChange,
    RecordChange,
    RegionChange,
    RegistersChange,
    ThreadChange,
)
from vcsimg.image.records import Record, quote
from vcsimg.image.region import Region

_ROW = 16
_CONTEXT = 1
_LONGEST = 160


@dataclass
class RegionCount:
    """How much of a region changed. `change` is None if only its bytes did."""

    pid: int
    region: Region
    change: RegionChange | None = None
    pages: int = 0
    bytes: int = 0


@dataclass
class Totals:
    """Sums over a whole diff."""

    regions: int = 0
    pages: int = 0
    bytes: int = 0
    threads: int = 0
    records: int = 0


def count(changes: Iterable[Change]) -> tuple[list[RegionCount], Totals]:
    """Counts by region, ascending by pid and address, and in total. Reads all changes through, and keeps none."""
    counts: dict[tuple[int, int], RegionCount] = {}
    totals = Totals()
    threads: set[tuple[int, int]] = set()
    for change in changes:
        if isinstance(change, RegionChange):
            region = (change.after or change.before)[0]
            counts.setdefault((change.pid, region.start), RegionCount(change.pid, region)).change = change
        elif isinstance(change, PageChange):
            found = counts.setdefault((change.pid, change.region.start), RegionCount(change.pid, change.region))
            found.pages += 1
            found.bytes += change.changed_bytes
            totals.pages += 1
            totals.bytes += change.changed_bytes
        elif isinstance(change, (ThreadChange, RegistersChange)):
            threads.add((change.pid, change.tid))
        elif isinstance(change, RecordChange):
            totals.records += 1
    totals.regions = len(counts)
    totals.threads = len(threads)
    return [counts[key] for key in sorted(counts)], totals


def stat(changes: Iterable[Change]) -> Iterator[str]:
    """Lines of `diff --stat`, without newlines."""
    counts, totals = count(changes)
    for found in counts:
        parts = [describe_kinds(found.change)] if found.change else []
        if found.pages:
            parts.append(f"{_plural(found.pages, 'page')}, {_plural(found.bytes, 'byte')}")
        yield f"{found.pid} {describe_region(found.region)}: {'; '.join(parts)}"
    yield (
        f"{_plural(totals.regions, 'region')}, {_plural(totals.pages, 'page')}, {_plural(totals.bytes, 'byte')}, "
        f"{_plural(totals.threads, 'thread')}, {_plural(totals.records, 'record')} changed"
    )


def text(changes: Iterable[Change], *, with_bytes: bool = False) -> Iterator[str]:
    """Lines of `diff`, without newlines; with the changed bytes (`diff --hex`) if `with_bytes`."""
    for change in changes:
        yield describe(change)
        if with_bytes and isinstance(change, PageChange):
            yield from hex_rows(change)


def describe(change: Change) -> str:
    """One line for one difference."""
    if isinstance(change, ProcessChange):
        return f"process {change.pid} {quote(change.name)} {change.kind}"
    if isinstance(change, RegionChange):
        return f"{change.pid} region {describe_region((change.after or change.before)[0])}: {describe_kinds(change)}"
    if isinstance(change, PageChange):
        return f"{change.pid} page {change.address:012x} {_name(change.region)}: {_plural(change.changed_bytes, 'byte')}"
    if isinstance(change, ThreadChange):
        return f"{change.pid} thread {change.tid} {change.kind}"
    if isinstance(change, RegistersChange):
        words = [f"{name} {before:#x} -> {after:#x}" for name, (before, after) in change.general.items()]
        return f"{change.pid} thread {change.tid} registers: {', '.join(words + ['vector'] * change.vector)}"
    return _describe_record(change)


def describe_region(region: Region) -> str:
    """Where a region is, its protection and its name."""
    return f"{region.start:012x}-{region.end:012x} {region.perms} {_name(region)}"


def describe_kinds(change: RegionChange) -> str:
    """What became of a region."""
    before, after = (sum(len(region.range) for region in regions) for regions in (change.before, change.after))
    words = []
    for kind in change.kinds:
        if kind in ("grew", "shrank"):
            words.append(f"{kind} from {_size(before)} to {_size(after)}")
        elif kind in ("appeared", "vanished"):
            words.append(f"{kind} ({_size(before or after)})")
        elif kind == "split":
            words.append(f"split into {len(change.after)}")
        elif kind == "merged":
            words.append(f"merged from {len(change.before)}")
        elif kind == "protection":
            words.append(
                "protection " + _arrow((region.perms for region in change.before), (region.perms for region in change.after))
            )
        elif kind == "name":
            words.append("name " + _arrow(map(_name, change.before), map(_name, change.after)))
        else:
            words.append({"flags": "flags changed", "backing": "file changed", "moved": "bounds moved"}[kind])
    return ", ".join(words)


def hex_rows(change: PageChange, context: int = _CONTEXT) -> Iterator[str]:
    """The rows of 16 bytes of a page that changed, `-` before and `+` after, with up to `context` equal rows around them."""
    rows = range(0, len(change.before), _ROW)
    changed = {row for row in rows if change.before[row : row + _ROW] != change.after[row : row + _ROW]}
    shown = {row + step * _ROW for row in changed for step in range(-context, context + 1)}
    last = None
    for row in rows:
        if row not in shown:
            continue
        if last is not None and row != last + _ROW:
            yield "  …"
        last = row
        if row not in changed:
            yield _hex_row(" ", change.address + row, change.before[row : row + _ROW])
            continue
        yield _hex_row("-", change.address + row, change.before[row : row + _ROW])
        yield _hex_row("+", change.address + row, change.after[row : row + _ROW])


def _hex_row(mark: str, address: int, data: bytes) -> str:
    letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
    return f"{mark} {address:012x}  {data[:8].hex(' ')}  {data[8:].hex(' ')}  |{letters}|"


def _describe_record(change: RecordChange) -> str:
    where = f"{change.pid} " if change.pid is not None else ""
    where += f"thread {change.tid}" if change.tid is not None else change.section
    if change.before is not None and change.after is not None:
        return f"{where}: {_subject(change.after)}: {', '.join(_values(change.before, change.after))}"
    mark, record = ("+", change.after) if change.after is not None else ("-", change.before)
    assert record is not None
    return f"{where}: {mark} {_short(record.line())}"


def _subject(record: Record) -> str:
    """Kind and first value of a record: what it is about."""
    first = next(iter(record.fields.items()), None)
    return record.kind + (f" {first[0]}={quote(first[1])}" if first else "")


def _values(before: Record, after: Record) -> Iterator[str]:
    if before.kind != after.kind:
        yield f"{before.kind} -> {after.kind}"
    for name in {**before.fields, **after.fields}:
        one, two = before.get(name), after.get(name)
        if one != two:
            yield f"{name} {_value(one)} -> {_value(two)}"


def _value(value: str | None) -> str:
    return "(none)" if value is None else _short(quote(value))


def _short(text: str) -> str:
    """What was queued in a pipe can be a line of megabytes."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _name(region: Region) -> str:
    return quote(region.name) if region.name else "(anonymous)"


def _arrow(before: Iterable[str], after: Iterable[str]) -> str:
    return " -> ".join(",".join(dict.fromkeys(side)) for side in (before, after))


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size and size % (1 << 20) == 0 else f"{size >> 10} KiB"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
