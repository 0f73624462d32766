"""`vcsimg checkout`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.options import PID, choose_process, find_captures, json_option, repository_option
from vcsimg.cli.output import Output, size, stderr, stdout
from vcsimg.cli.progress import transfer
from vcsimg.errors import ExportError, VcsimgError

if TYPE_CHECKING:
    from vcsimg.export.core import Progress


@click.command()
@click.argument("revision")
@click.option(
    "--core", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE", help="One ELF core, to FILE (-: standard output)."
)
@click.option("--raw", type=click.Path(path_type=Path), metavar="DIR", help="Plain files: memory by region, texts, mapped files.")
@click.option(
    "--files",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The contents of files that it had open, by their paths below DIR.",
)
@click.option("--process", "pid", type=PID, metavar="PID", help="Only this process of a tree.")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist.")
@repository_option
@json_option("One JSON document: the commit, and the paths of what was written.")
def checkout(
    revision: str,
    core: Path | None,
    raw: Path | None,
    files: Path | None,
    pid: int | None,
    force: bool,
    repo: Path | None,
    as_json: bool,
) -> None:
    """Rebuild the image of a capture: an ELF core for each process, named COMM.PID.core, in the current folder.

    Debuggers open it: gdb PROGRAM COMM.PID.core. Every page is checked against the hash that was stored with it.
    """
    from vcsimg.export import core_name, save_core, write_core, write_open_files, write_raw

    if as_json and core is not None and str(core) == "-":
        raise click.UsageError("--core - and --json both write standard output.")
    err = stderr()
    written: list[Path] = []
    with find_captures(repo) as repository:
        commit = repository.resolve(revision)
        with transfer(err) as fetching:
            repository.complete(commit, progress=fetching)
        snapshot = repository.load(commit)
        processes = [choose_process(snapshot, pid, commit)] if pid is not None else list(snapshot.processes)
        if core is not None and len(processes) > 1:
            raise VcsimgError(
                f"capture {commit[:12]} has {len(processes)} processes, and --core writes one",
                remedy=f"Choose one with --process: {', '.join(str(process.pid) for process in processes)}.",
            )
        cores = [(processes[0], core)] if core is not None else []
        if core is None and raw is None and files is None:
            cores = [(process, Path(core_name(process))) for process in processes]
        for _, path in cores:
            if str(path) != "-" and os.path.lexists(path) and not force:
                raise ExportError(str(path), "the file exists", remedy="Name another with --core, or replace it with --force.")
        for process, path in cores:
            if str(path) == "-":
                if sys.stdout.isatty():
                    raise click.UsageError("A core is not for terminals: send standard output to a file or a pipe.")
                with _progress(err, f"{process.name} {process.pid}") as progress:
                    write_core(snapshot, process, sys.stdout.buffer, progress=progress)
                continue
            with _progress(err, str(path)) as progress:
                save_core(snapshot, process, path, progress=progress)
            written.append(path)
        if raw is not None:
            with _progress(err, str(raw)) as progress:
                write_raw(replace(snapshot, processes=tuple(processes)), raw, progress=progress)
            written.append(raw)
        if files is not None:
            write_open_files(replace(snapshot, processes=tuple(processes)), files)
            written.append(files)
    if as_json:
        stdout().json({"commit": commit, "written": [str(path.absolute()) for path in written]})
        return
    for path in written:
        stdout().line((str(path), "bold"), f"  {_what(path)}")


def _what(path: Path) -> str:
    if path.is_dir():
        return "folder"
    facts = path.stat()
    return f"{size(facts.st_size)}, {size(facts.st_blocks * 512)} on disk"


@contextmanager
def _progress(output: Output, title: str) -> Iterator[Progress | None]:
    """A progress bar while the block runs, on a terminal."""
    if not output.terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=output.console, transient=True) as bar:
        task = bar.add_task(output.text(title).plain, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress
