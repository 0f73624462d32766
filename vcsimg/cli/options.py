"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vcsimg.errors import RepositoryMissing, StoreError, VcsimgError

if TYPE_CHECKING:
    from vcsimg.image.snapshot import Process, Snapshot
    from vcsimg.store import Repository

Command = TypeVar("Command", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A time span: 500ms, 1s, 1.5s, 2m, 1h; a bare number is seconds. Gives seconds."""

    name = "duration"
    _SYNTAX = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(us|ms|s|m|h|)\Z")
    _UNITS = {"us": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = self._SYNTAX.match(value.strip())
        if found is None:
            self.fail(f"{value!r} is not a time span such as 500ms, 1s or 2m", param, ctx)
        seconds = float(found[1]) * self._UNITS[found[2]]
        if seconds > 86400 * 365:
            self.fail(f"{value!r} is more than a year", param, ctx)
        return seconds


class Size(click.ParamType[int]):
    """An amount of bytes: 64M, 1.5G, 500K (powers of 1024); a bare number is bytes."""

    name = "size"
    _SYNTAX = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
    _UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = self._SYNTAX.match(value.strip())
        if found is None:
            self.fail(f"{value!r} is not an amount of bytes such as 500K, 64M or 1G", param, ctx)
        return int(float(found[1]) * (1 << self._UNITS[found[2].upper()]))


class Signal(click.ParamType[int]):
    """A signal by name (USR1, SIGUSR1, RTMIN+2) or number. Gives its number. Not one that ends or stops a recorder."""

    name = "signal"
    _RESERVED = frozenset(
        (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGTSTP)
    )
    _REAL_TIME = re.compile(r"RTMIN\+([0-9]{1,2})\Z")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = value.upper().removeprefix("SIG")
        real_time = self._REAL_TIME.match(text)
        try:
            number = (
                int(text) if text.isdigit() else signal.SIGRTMIN + int(real_time[1]) if real_time else signal.Signals[f"SIG{text}"]
            )
        except KeyError:
            self.fail(f"{value!r} is not a signal", param, ctx)
        if number not in signal.valid_signals():
            self.fail(f"{value!r} is not a signal", param, ctx)
        if number in self._RESERVED:
            self.fail(f"{value!r} already means something else to a recorder", param, ctx)
        return int(number)


PID = click.IntRange(min=1, max=(1 << 31) - 1)
DURATION = Duration()
SIZE = Size()
SIGNAL = Signal()


def repository_option(command: Command) -> Command:
    """--repo; the command gets `repo`: a path or None."""
    return click.option(
        "--repo",
        type=click.Path(path_type=Path),
        metavar="PATH",
        callback=lambda context, _, value: value if value is not None else context.obj,
        help="The repository; else $VCSIMG_REPO, else the nearest one from the current folder upward.",
    )(command)


def json_option(text: str) -> Callable[[Command], Command]:
    """--json; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def key_options(purpose: str) -> Callable[[Command], Command]:
    """--key-file and --key-command; the command gets `key_file` and `key_command`, at most one of which is not None."""

    def one_only(context: click.Context, _: click.Parameter, value: Any) -> Any:
        if value is not None and any(context.params.get(name) is not None for name in ("key_file", "key_command")):
            raise click.UsageError("--key-file and --key-command exclude one another.")
        return value

    def options(command: Command) -> Command:
        file = click.option(
            "--key-file", type=click.Path(path_type=Path), metavar="FILE", callback=one_only, help=f"Encryption: {purpose}."
        )
        call = click.option("--key-command", metavar="COMMAND", callback=one_only, help="The same, printed by a shell command.")
        return file(call(command))

    return options


def find_repository(repo: Path | None) -> Repository:
    """The repository that is meant. Raises RepositoryMissing, StoreError."""
    from vcsimg.store import Repository

    try:
        here = Path.cwd()
    except FileNotFoundError:
        if repo is None or not repo.is_absolute():
            raise RepositoryMissing("the current folder, which was deleted") from None
        here = Path("/")
    return Repository.discover(here, repo)


def find_captures(repo: Path | None) -> Repository:
    """The repository that is meant, which must have captures. Raises StoreError."""
    repository = find_repository(repo)
    if not repository.branches():
        raise StoreError(
            str(repository.path), "no captures yet", remedy="`vcsimg capture PID` makes one, `vcsimg run COMMAND` makes many."
        )
    return repository


def choose_process(snapshot: Snapshot, pid: int | None, commit: str) -> Process:
    """The process of a capture that is meant: the root if `pid` is None. Raises VcsimgError."""
    if pid is None:
        return snapshot.processes[0]
    for process in snapshot.processes:
        if process.pid == pid:
            return process
    pids = ", ".join(str(process.pid) for process in snapshot.processes)
    raise VcsimgError(f"capture {commit[:12]} has no process {pid}", remedy=f"It has {pids}.")
