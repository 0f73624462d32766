"""The command `vcsimg` and its subcommands."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import click

from vcsimg import __version__

_COMMANDS = {
    "init": "repository",
    "run": "record",
    "record": "record",
    "snap": "record",
    "capture": "record",
    "log": "log",
    "show": "show",
    "diff": "diff",
    "blame": "history",
    "search": "history",
    "checkout": "checkout",
    "restore": "restore",
    "clone": "remotes",
    "push": "remotes",
    "fetch": "remotes",
    "bundle": "remotes",
    "gc": "upkeep",
    "prune": "upkeep",
    "fsck": "fsck",
    "doctor": "doctor",
    "textconv": "textconv",
    "version": "version",
}
"""Command → module of this package. A module is imported when its command is called: `vcsimg log` need not wait for ptrace."""

_WITH_NUMPY = {"record", "show", "diff", "history", "checkout", "restore", "fsck", "upkeep", "textconv", "doctor"}
"""Modules of commands that need it sooner or later."""

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"vcsimg.cli.{_COMMANDS[name]}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, context: click.Context, arguments: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(context, arguments)
        if name is not None and _COMMANDS.get(name) in _WITH_NUMPY:
            _load_numpy()
        return name, command, rest


def _load_numpy() -> None:
    """Numpy's OpenBLAS makes a thread a processor when it is loaded, which look for work for 0.1 s, in vain: nothing here multiplies matrices. Only its
    environment tells it not to, and a program that is run by a command must not inherit that."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        importlib.import_module("numpy")
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]
        else:
            os.environ[_BLAS_THREADS] = before


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="vcsimg %(version)s")
@click.option(
    "--repo",
    envvar="VCSIMG_REPO",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The repository; else $VCSIMG_REPO, else the nearest one from the current folder upward.",
)
@click.pass_context
def vcsimg(context: click.Context, repo: Path | None) -> None:
    """The history of running processes, kept in git: every capture of a process is a commit."""
    context.obj = repo
