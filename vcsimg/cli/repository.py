"""`vcsimg init`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from vcsimg.cli.options import json_option, key_options, repository_option
from vcsimg.cli.output import stderr, stdout


@click.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@key_options("the key is in FILE, which is made if it is not there")
@repository_option
@json_option("One JSON document: path, created.")
def init(path: Path | None, key_file: Path | None, key_command: str | None, repo: Path | None, as_json: bool) -> None:
    """Make a repository: PATH, or .vcsimg in the current folder.

    It is a bare git repository, readable by you alone, since memory holds secrets. Where there is one, its settings are brought up to date.

    With a key, everything stored in it is encrypted, so that whoever hosts a copy cannot read it: names of files, addresses, sizes and
    times excepted. Keep a copy of the key elsewhere: without it the captures are lost.
    """
    from vcsimg.store import Repository
    from vcsimg.store.setup import DEFAULT_NAME

    place = (path or repo or Path(DEFAULT_NAME)).absolute()
    there = (place / "HEAD").exists()
    with Repository.init(place, key_file=key_file, key_command=key_command) as repository:
        place = repository.path
    if as_json:
        stdout().json({"path": str(place), "created": not there})
    else:
        stdout().line("The repository is up to date: " if there else "Made an empty repository: ", (str(place), "bold"))
        if key_file is not None:
            stdout().line("Its key is in ", (str(key_file.absolute()), "bold"), ": keep a copy of it elsewhere.")
        if shutil.which("vcsimg") is None:
            stderr().line(
                "vcsimg is not on PATH: `git log -p` in the repository calls it to show memory, and will fail until it is."
            )
