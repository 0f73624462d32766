"""`vcsimg show`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcsimg.cli.log import as_dict as capture_as_dict
from vcsimg.cli.options import PID, choose_process, find_captures, json_option, repository_option
from vcsimg.cli.output import Column, Output, count, duration, moment, region_name, size, stdout

if TYPE_CHECKING:
    from vcsimg.image.region import Region
    from vcsimg.image.snapshot import Process, Snapshot
    from vcsimg.store import Capture

_LISTED = 12


@click.command()
@click.argument("revision", default="HEAD", metavar="[REVISION[:PATH]]")
@click.option(
    "--variable", metavar="EXPRESSION", help="The value of a variable: counter, list->next, table[3].name, *(int *)0x7f01."
)
@click.option("--process", "pid", type=PID, metavar="PID", help="For --variable: this process of a tree, not its root.")
@repository_option
@json_option("One JSON document.")
def show(revision: str, variable: str | None, pid: int | None, repo: Path | None, as_json: bool) -> None:
    """Show a capture: its processes, threads, regions, and what it could not save.

    With :PATH, one file of the capture's tree as it is stored, and the names in it for a folder: REVISION: lists the top. The files are
    described in docs/image-format.md.
    """
    out = stdout()
    name, colon, path = revision.partition(":")
    if variable is not None:
        _show_variable(out, revision, variable, pid, repo, as_json)
        return
    if pid is not None:
        raise click.UsageError("--process goes with --variable.")
    if colon and as_json:
        raise click.UsageError("REVISION:PATH gives the file as it is: it does not go with --json.")
    with find_captures(repo) as repository:
        if colon:
            out.bytes(repository.show(name or "HEAD", path))
            return
        capture = repository.capture(name)
        snapshot = repository.load(capture.id)
        if as_json:
            out.json({**capture_as_dict(capture), "processes": [_process_as_dict(process) for process in snapshot.processes]})
            return
        _print_capture(out, capture, snapshot)


def _show_variable(out: Output, revision: str, expression: str, pid: int | None, repo: Path | None, as_json: bool) -> None:
    from vcsimg.symbols import variable

    with find_captures(repo) as repository:
        commit = repository.resolve(revision)
        snapshot = repository.load(commit)
        process = choose_process(snapshot, pid, commit)
        found = variable(snapshot, process, expression)
    if as_json:
        out.json({"commit": commit, "pid": process.pid, **asdict(found)})
    else:
        out.line((expression, "bold"), f" = {found.text.expandtabs(8)}")
        if found.without_bases:
            out.line(("note: ", "yellow"), f"not shown: the members of base classes of {', '.join(found.without_bases)}")


def _print_capture(out: Output, capture: Capture, snapshot: Snapshot) -> None:
    facts = snapshot.facts
    out.line("capture ", (capture.id, "yellow"))
    out.line(capture.subject)
    if capture.body:
        out.line(capture.body)
    rows: list[tuple[str, str]] = [("time", moment(facts.time if facts else capture.time))]
    if facts is not None:
        cost = f"stopped {duration(facts.pause)}, {size(facts.bytes_read)} read, {count(facts.pages_changed, 'page')} changed"
        rows.append(("engine", f"{facts.engine or '-'}: {cost}"))
        rows.append(("host", f"{facts.host}, Linux {facts.kernel}, boot {facts.boot_id}"))
        if facts.source_commit:
            rows.append(("source", facts.source_commit))
        rows.extend(("note", note) for note in facts.notes)
    rows.extend(("parent", parent) for parent in capture.parents)
    _print_facts(out, rows)
    for process in snapshot.processes:
        out.line()
        _print_process(out, process)


def _print_process(out: Output, process: Process) -> None:
    command = " ".join(argument["value"] for argument in process.section("cmdline") if argument.get("value"))
    out.line("process ", (f"{process.pid} {process.name}", "bold"), f"  {command}" if command else "")
    kinds = Counter(record.kind for record in process.section("files"))
    mapped = sum(len(region.range) for region in process.regions)
    rows = [("parent", str(process.parent)), ("threads", _threads(process))]
    rows.append(("files", f"{count(kinds['file'] + kinds['duplicate'], 'descriptor')}{_contents(process)}"))
    rows.append(("memory", f"{count(len(process.regions), 'region')}, {size(mapped)} mapped, {_own(process)}"))
    _print_facts(out, rows)
    out.line()
    out.table(
        (Column("  regions", right=True), Column("size", right=True), Column("access"), Column("name")),
        ((str(number), size(total), perms, name) for name, perms, number, total in _mappings(process)),
    )
    unsaved = process.section("unsaved")
    if unsaved:
        out.line()
        out.line(("not saved:", "yellow"))
        for item in unsaved:
            out.line(f"  {item['resource']}: {item['reason']}")


def _print_facts(out: Output, rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        out.line((f"  {name:<8}", "dim"), value)


def _threads(process: Process) -> str:
    names = [f"{tid} {name}" for tid, name in _thread_names(process)]
    more = f", {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: {', '.join(names[:_LISTED])}{more}"


def _thread_names(process: Process) -> Iterator[tuple[int, str]]:
    for thread in process.threads:
        name = next((record.get("comm") for record in thread.records if record.kind == "name"), None)
        yield thread.tid, name or process.name


def _own(process: Process) -> str:
    from vcsimg.image.pages import ImageMemory
    from vcsimg.image.units import PIECE_SIZE

    pieces = len(list(process.memory.pieces.numbers())) if isinstance(process.memory, ImageMemory) else 0
    return f"own content in {count(pieces, 'piece')} of {PIECE_SIZE >> 20} MiB"


def _contents(process: Process) -> str:
    """How many of the files at their paths the image holds the content of."""
    from vcsimg.image.versions import contents

    found = contents(process)
    held = [content for content in found if content.sha256 is not None or content.in_memory]
    return f"; content of {len(held)} of {count(len(found), 'file')}, {size(sum(one.size for one in held))}" if found else ""


def _mappings(process: Process) -> list[tuple[str, str, int, int]]:
    """(name, access, regions, bytes) of each mapping, in the order of their addresses."""
    found: dict[str, list[Region]] = {}
    for region in process.regions:
        found.setdefault(region_name(region), []).append(region)
    return [
        (name, " ".join(sorted({region.perms for region in regions})), len(regions), sum(len(region.range) for region in regions))
        for name, regions in found.items()
    ]


def _process_as_dict(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "parent": process.parent,
        "name": process.name,
        "command": [argument["value"] for argument in process.section("cmdline")],
        "threads": [
            {"tid": thread.tid, "name": name, "registers": _hex(thread.registers)}
            for thread, (_, name) in zip(process.threads, _thread_names(process), strict=True)
        ],
        "regions": [
            {
                "start": region.start,
                "end": region.end,
                "perms": region.perms,
                "offset": region.offset,
                "device": region.device,
                "inode": region.inode,
                "flags": list(region.flags),
                "name": region.name,
                "readable": region.start not in process.unreadable,
            }
            for region in process.regions
        ],
        "mapped": [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "build_id": file.build_id} for file in process.mapped
        ],
        "sections": {
            name: [{"record": record.kind, **record.fields} for record in records]
            for name, records in sorted(process.state.items())
        },
    }


def _hex(registers: Mapping[str, int]) -> dict[str, str]:
    """As text: 64-bit numbers lose their last digits in many readers of JSON."""
    return {name: hex(value) for name, value in registers.items()}
