"""`vcsimg doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcsimg.cli.options import find_repository, json_option, repository_option
from vcsimg.cli.output import Column, Part, stdout
from vcsimg.errors import StoreError

if TYPE_CHECKING:
    from vcsimg.doctor import Check

_MARKS: dict[str, Part] = {"OK": ("ok", "green"), "LESS": ("less", "yellow"), "BAD": ("BAD", "bold red")}


@click.command()
@repository_option
@json_option("One JSON document: a list of name, result, text, remedy.")
def doctor(repo: Path | None, as_json: bool) -> int:
    """Say what this machine allows, and what would help.

    ok: it is there. less: something is slower or missing without it. BAD: no capture is possible; then the exit status is 1.
    """
    from vcsimg.doctor import Result, examine

    checks = [*examine(), _repository(repo)]
    out = stdout()
    if as_json:
        out.json([{"name": c.name, "result": c.result.value, "text": c.text, "remedy": c.remedy} for c in checks])
    else:
        columns = (Column(""), Column("check", style="bold"), Column("finding", fold=True))
        out.table(columns, ((_MARKS[check.result.name], check.name, _finding(check)) for check in checks), titles=False)
    return int(any(check.result is Result.BAD for check in checks))


def _finding(check: Check) -> str:
    return f"{check.text}. {check.remedy}" if check.remedy else check.text


def _repository(repo: Path | None) -> Check:
    """The repository that a command would use here: none is no fault, one that cannot be used is."""
    from vcsimg.doctor import Check, Result

    try:
        with find_repository(repo) as repository:
            return Check("repository", Result.OK, str(repository.path))
    except StoreError as error:
        return Check("repository", Result.LESS, str(error), error.remedy)
