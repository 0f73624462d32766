"""`vcsimg gc` and `vcsimg prune`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from vcsimg.cli.options import DURATION, find_captures, find_repository, json_option, repository_option
from vcsimg.cli.output import count, size, stderr, stdout
from vcsimg.cli.progress import busy


@click.command()
@repository_option
@json_option("One JSON document: bytes and packs, before and after.")
def gc(repo: Path | None, as_json: bool) -> None:
    """Pack everything anew, and drop what no branch or tag leads to.

    There is no need to: packs are consolidated while recordings go on. It helps after branches were deleted, and makes old histories somewhat smaller. It
    may run at any time, as may `git gc`.
    """
    with find_repository(repo) as repository, busy(stderr(), "packing"):
        collected = repository.gc()
    if as_json:
        stdout().json({**asdict(collected), "freed": collected.freed})
        return
    packs = f"{count(collected.packs_before, 'pack')} became {collected.packs_after}"
    stdout().line(f"{size(collected.freed)} freed, {size(collected.bytes_after)} left; {packs}")


@click.command()
@click.option("--keep-every", type=DURATION, metavar="TIME", help="Keep one capture in each span of this length: 1m, 10s, 1h.")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the newest N captures of each branch.")
@click.option("--keep-tagged/--no-keep-tagged", default=True, show_default=True, help="Keep captures that a tag names.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say how many captures would go.")
@repository_option
@json_option("One JSON document: captures kept and removed; bytes before, after and freed.")
def prune(
    keep_every: float | None, keep_last: int | None, keep_tagged: bool, dry_run: bool, repo: Path | None, as_json: bool
) -> None:
    """Thin old history: keep what the options name, and free the rest for good.

    The newest capture of each branch always stays, and so do those that several branches come from. What stays is whole, but
    captures after a gap get new ids, since their parents change. Not possible for a branch that is being recorded.
    """
    if keep_every == 0:
        raise click.UsageError("--keep-every takes a time span such as 10s, 1m or 1h.")
    if keep_every is None and keep_last is None:
        raise click.UsageError("Say what to keep: --keep-every 1m, --keep-last 1000, or both.")
    with find_captures(repo) as repository, busy(stderr(), "pruning"):
        pruned = repository.prune(keep_every=keep_every, keep_last=keep_last, keep_tagged=keep_tagged, dry_run=dry_run)
    if as_json:
        stdout().json({**asdict(pruned), "freed": pruned.freed, "dry_run": dry_run})
        return
    captures = f"{count(pruned.removed, 'capture')} {'would go' if dry_run else 'gone'}, {pruned.kept} kept"
    stdout().line(captures if dry_run else f"{captures}; {size(pruned.freed)} freed, {size(pruned.bytes_after)} left")
