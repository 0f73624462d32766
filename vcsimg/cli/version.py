"""`vcsimg version`."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from vcsimg import __version__
from vcsimg.cli.options import json_option
from vcsimg.cli.output import stdout


@click.command()
@json_option("One JSON document.")
def version(as_json: bool) -> None:
    """Versions of vcsimg and of what it stands on."""
    facts = {"vcsimg": __version__, "python": platform.python_version(), "linux": platform.release()}
    for package in ("pygit2", "python-ptrace", "zstandard", "numpy", "drgn"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if as_json:
        stdout().json(facts)
        return
    for name, number in facts.items():
        stdout().line(f"{name} {number}")
