"""`vcsimg restore`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.options import find_captures, json_option, repository_option
from vcsimg.cli.output import stderr, stdout

if TYPE_CHECKING:
    from vcsimg.store import Repository
    from vcsimg.symbols import Symbols

_POKE = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)(?::([1248]))?=(?:(0x[0-9a-fA-F]+|-?[0-9]+)|hex:((?:[0-9a-fA-F]{2})+))\Z")


class Poke(click.ParamType[tuple[int | str, bytes | str]]):
    """ADDR=NUMBER (8 bytes, or ADDR:SIZE=NUMBER), or ADDR=hex:BYTES; or VARIABLE=VALUE, both as they are."""

    name = "poke"

    def convert(
        self, value: str | tuple[int | str, bytes | str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | str, bytes | str]:
        if isinstance(value, tuple):
            return value
        found = _POKE.match(value)
        if found is None:
            variable, equals, text = value.partition("=")
            if not equals or not text or not re.match(r"[^\d\s]", variable):
                self.fail(f"{value!r} is not ADDR=NUMBER, ADDR:SIZE=NUMBER, ADDR=hex:BYTES or VARIABLE=VALUE", param, ctx)
            return variable, text
        address = int(found[1], 0)
        if found[4] is not None:
            return address, bytes.fromhex(found[4])
        size = int(found[2] or 8)
        number = int(found[3], 0)
        if not -(1 << 8 * size - 1) <= number < 1 << 8 * size:
            self.fail(f"{number} does not fit into {size} bytes", param, ctx)
        return address, (number % (1 << 8 * size)).to_bytes(size, "little")


def _pokes(repository: Repository, revision: str, pokes: Iterable[tuple[int | str, bytes | str]]) -> dict[int, bytes]:
    """What is to be written where. Variables are those of the root process."""
    found: dict[int, bytes] = {}
    symbols: Symbols | None = None
    for place, value in pokes:
        if isinstance(place, int):
            assert isinstance(value, bytes)
            found[place] = value
            continue
        if symbols is None:
            from vcsimg.symbols import Symbols

            snapshot = repository.load(repository.resolve(revision))
            symbols = Symbols(snapshot, snapshot.processes[0])
        assert isinstance(value, str)
        address, data = symbols.encode(place, value)
        found[address] = data
    return found


@click.command()
@click.argument("revision")
@click.option("-d", "--detach", is_flag=True, help="Return when it runs, instead of waiting for its end.")
@click.option("--stopped", is_flag=True, help="Leave it stopped, for a debugger: SIGCONT lets it run.")
@click.option("--stdin", type=click.Path(path_type=Path), metavar="FILE", help="Standard input, where it led out of the capture.")
@click.option("--stdout", "output", type=click.Path(path_type=Path), metavar="FILE", help="The same for standard output.")
@click.option("--stderr", "errors", type=click.Path(path_type=Path), metavar="FILE", help="The same for standard error.")
@click.option(
    "--files",
    type=click.Choice(("keep", "rollback", "fail")),
    default="keep",
    show_default=True,
    help="Files that have changed since: use them as they are and say so; bring them back, and keep what is there beside; or refuse.",
)
@click.option(
    "--tcp",
    type=click.Choice(("reset", "close", "keep")),
    default="reset",
    show_default=True,
    help="Connections to the world outside: broken, or ended by the other side; keep: they go on (takes CAP_NET_ADMIN, twice).",
)
@click.option(
    "--outside",
    type=click.Choice(("fail", "close")),
    default="fail",
    show_default=True,
    help="Pipes and sockets to processes that are not in the capture: refuse, or close the other end.",
)
@click.option("--incomplete", is_flag=True, help="Also a process of which much could not be read, or that was in other namespaces.")
@click.option(
    "--poke",
    "pokes",
    type=Poke(),
    multiple=True,
    metavar="PLACE=VALUE",
    help="Write a value into its memory first: PLACE is an address or a variable.",
)
@click.option("--host-pids", is_flag=True, help="In no namespaces of its own: its pids must be free (needs privilege).")
@repository_option
@json_option("One JSON document when it runs: pid, branch, notes.")
def restore(
    revision: str,
    detach: bool,
    stopped: bool,
    stdin: Path | None,
    output: Path | None,
    errors: Path | None,
    files: str,
    tcp: str,
    outside: str,
    incomplete: bool,
    pokes: tuple[tuple[int | str, bytes | str], ...],
    host_pids: bool,
    repo: Path | None,
    as_json: bool,
) -> int:
    """Run a capture again, from the very instruction where it was.

    It gets its pids back, in namespaces of its own: no privilege is needed, and one capture can run many times. The terminal takes the place of the
    old one. Captures of it continue the history at REVISION, on a branch of their own.
    """
    from vcsimg.recording import leave_as
    from vcsimg.recording.resume import attend, resume
    from vcsimg.restore import RestoreOptions

    with ExitStack() as stack:
        repository = stack.enter_context(find_captures(repo))
        standard = tuple(_standard(stack, path, number, detach) for number, path in enumerate((stdin, output, errors)))
        options = RestoreOptions(
            standard=(standard[0], standard[1], standard[2]),
            files=files,
            tcp=tcp,
            outside=outside,
            incomplete=incomplete,
            attended=not detach,
            pokes=_pokes(repository, revision, pokes),
            stopped=stopped,
            host_pids=host_pids,
        )
        restored, branch = resume(repository, revision, options)
    err = stderr()
    for note in restored.notes:
        err.line(("note: ", "yellow"), note)
    if as_json:
        stdout().json({"pid": restored.pid, "branch": branch, "notes": list(restored.notes)})
        stdout().flush()
    elif detach or stopped:
        err.line(f"process {restored.pid} runs" if not stopped else f"process {restored.pid} is stopped", f" on branch {branch}")
    if detach:
        restored.space.leave()
        return 0
    return leave_as(attend(restored, standard))


def _standard(stack: ExitStack, path: Path | None, number: int, detach: bool) -> int | None:
    """A descriptor for standard input, output or error."""
    if path is None:
        return None if detach else number
    flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from None
    stack.callback(os.close, fd)
    return fd
