"""`vcsimg log`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcsimg.cli.options import find_repository, json_option, repository_option
from vcsimg.cli.output import Part, duration, moment, stdout

if TYPE_CHECKING:
    from vcsimg.store import Capture

_ENGINE_WIDTH = 7


@click.command()
@click.argument("revision", required=False)
@click.option("-n", "--number", type=click.IntRange(min=1), metavar="N", help="At most N captures.")
@click.option("--all", "everything", is_flag=True, help="The captures of all branches, not of one.")
@repository_option
@json_option("One JSON document: a list of captures, newest first.")
def log(revision: str | None, number: int | None, everything: bool, repo: Path | None, as_json: bool) -> None:
    """List captures, newest first: those that REVISION comes from, else those of the branch captured last.

    Columns: commit, time, engine, how long the process was stopped, pages changed, subject; the newest of a branch shows its name.
    REVISION is a branch or anything else that git understands: a commit, HEAD~3, BRANCH~10.
    """
    if revision is not None and everything:
        raise click.UsageError("--all and REVISION exclude one another.")
    out = stdout()
    with find_repository(repo) as repository:
        captures = repository.log(revision, number, everything)
        if as_json:
            out.json([as_dict(capture) for capture in captures])
            return
        for capture in captures:
            out.line(*_parts(capture))


def as_dict(capture: Capture) -> dict[str, Any]:
    """What the commit says of a capture, for programs."""
    trailers = capture.trailers
    return {
        "commit": capture.id,
        "parents": list(capture.parents),
        "branch": capture.branch,
        "time": capture.time,
        "subject": capture.subject,
        "body": capture.body,
        "engine": trailers.get("Engine"),
        "pause_us": number_in(trailers, "Pause-Microseconds"),
        "bytes_read": number_in(trailers, "Bytes-Read"),
        "pages_changed": number_in(trailers, "Pages-Changed"),
        "pid": number_in(trailers, "Process"),
        "process_start": number_in(trailers, "Process-Start"),
        "host": trailers.get("Host"),
        "kernel": trailers.get("Kernel"),
        "boot_id": trailers.get("Boot-Id"),
        "source_commit": trailers.get("Source-Commit"),
    }


def number_in(trailers: dict[str, str], name: str) -> int | None:
    """A number from a trailer; None if it is absent or none (anyone can write a commit message)."""
    text = trailers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _parts(capture: Capture) -> list[Part]:
    pause = number_in(capture.trailers, "Pause-Microseconds")
    pages = number_in(capture.trailers, "Pages-Changed")
    parts: list[Part] = [
        (capture.id[:12], "yellow"),
        f"  {moment(capture.time)}  ",
        (f"{capture.trailers.get('Engine', '-'):<{_ENGINE_WIDTH}}", "cyan"),
        f"  {duration(pause / 1e6) if pause is not None else '-':>8}",
        f"  {pages if pages is not None else '-':>7}  ",
        capture.subject,
    ]
    if capture.branch is not None:
        parts.append((f"  ({capture.branch})", "green"))
    return parts
