"""`vcsimg textconv`: git's diff driver calls it for blobs of memory."""

from __future__ import annotations

from pathlib import Path

import click

from vcsimg.cli.output import stdout
from vcsimg.errors import VcsimgError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def textconv(file: Path) -> None:
    """Say in text which pages a blob of memory holds, and how many bytes a delta changes in each.

    `git log -p` and `git diff` call this: `vcsimg init` sets it up.
    """
    from vcsimg.delta import describe

    try:
        blob = file.read_bytes()
    except OSError as error:
        raise VcsimgError(f"{file}: {error.strerror}") from None
    stdout().bytes(describe(blob, str(file)).encode())
