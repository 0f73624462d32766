"""`vcsimg init`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from vcsimg.cli.options import json_option, repository_option
from vcsimg.cli.output import stderr, stdout


@click.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@repository_option
@json_option("One JSON document: path, created.")
def init(path: Path | None, repo: Path | None, as_json: bool) -> None:
    """Make a repository: PATH, or .vcsimg in the current folder.

    It is a bare git repository, readable by you alone, since memory holds secrets. Where there is one, its settings are brought up to date.
    """
    from vcsimg.store import Repository
    from vcsimg.store.setup import DEFAULT_NAME

    place = (path or repo or Path(DEFAULT_NAME)).absolute()
    there = (place / "HEAD").exists()
    with Repository.init(place) as repository:
        place = repository.path
    if as_json:
        stdout().json({"path": str(place), "created": not there})
    else:
        stdout().line("The repository is up to date: " if there else "Made an empty repository: ", (str(place), "bold"))
        if shutil.which("vcsimg") is None:
            stderr().line(
                "vcsimg is not on PATH: `git log -p` in the repository calls it to show memory, and will fail until it is."
            )
