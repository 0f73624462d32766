"""`vcsimg fsck`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.options import find_repository, json_option, repository_option
from vcsimg.cli.output import Output, count, stderr, stdout

if TYPE_CHECKING:
    from vcsimg.store.fsck import Progress


@click.command()
@click.option(
    "--salvage", type=click.Path(path_type=Path), metavar="PATH", help="Copy every capture that is whole into a new repository."
)
@repository_option
@json_option("One JSON document: checked, findings, damaged captures.")
def fsck(salvage: Path | None, repo: Path | None, as_json: bool) -> int:
    """Check that every capture can be rebuilt, page by page, and git's own objects. The exit status is 1 if anything is wrong."""
    out = stdout()
    with find_repository(repo) as repository:
        with _progress(stderr()) as progress:
            report = repository.fsck(progress)
        saved = repository.salvage(salvage, report) if salvage is not None else None
    if as_json:
        findings = [{"capture": finding.capture, "message": finding.message} for finding in report.findings]
        facts = {
            "checked": report.checked,
            "sealed": report.sealed,
            "absent": report.absent,
            "findings": findings,
            "damaged": sorted(report.damaged),
        }
        out.json(facts if saved is None else {**facts, "salvaged": saved})
        return int(not report.clean)
    for finding in report.findings:
        out.line((finding.message, "red"))
    sealed = f", of {report.sealed} only the objects, since the key is not here" if report.sealed else ""
    absent = f", {report.absent} not, since their contents are not here" if report.absent else ""
    out.line(
        f"{count(report.checked, 'capture')} checked{sealed}{absent}, {len(report.damaged)} damaged, {count(len(report.findings), 'finding')}"
    )
    if saved is not None:
        out.line(f"{count(saved, 'capture')} saved to {salvage}")
    return int(not report.clean)


@contextmanager
def _progress(output: Output) -> Iterator[Progress | None]:
    """A progress bar while the block runs, on a terminal."""
    if not output.terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    with Progress("checking", BarColumn(), MofNCompleteColumn(), console=output.console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
