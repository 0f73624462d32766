"""`vcsimg clone`, `push`, `fetch` and `bundle`: other copies of a repository, by the git command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vcsimg.cli.options import find_captures, find_repository, json_option, key_options, repository_option
from vcsimg.cli.output import count, size, stderr, stdout
from vcsimg.cli.progress import transfer
from vcsimg.errors import ExportError


@click.command()
@click.argument("url")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--light", is_flag=True, help="Without contents: those of a capture are fetched when it is looked at.")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Only the newest N captures of each branch.")
@key_options("where the key of an encrypted repository is")
@json_option("One JSON document: path, and the branches with their newest captures.")
def clone(
    url: str, path: Path | None, light: bool, depth: int | None, key_file: Path | None, key_command: str | None, as_json: bool
) -> None:
    """Copy a repository: to PATH, else to .vcsimg in the current folder. URL: whatever git can clone from, a bundle too.

    With --light the whole log is there at once, and every capture can be used as if it were: what is missing of it comes from URL,
    which must allow filters (repositories of vcsimg do).
    """
    from vcsimg.store import Repository
    from vcsimg.store.setup import DEFAULT_NAME

    place = (path or Path(DEFAULT_NAME)).absolute()
    with transfer(stderr()) as progress:
        cloned = Repository.clone(
            url, place, light=light, depth=depth, key_file=key_file, key_command=key_command, progress=progress
        )
    with cloned as repository:
        branches = repository.branches()
    if as_json:
        stdout().json({"path": str(place), "branches": {branch.name: branch.tip for branch in branches}})
    else:
        stdout().line(f"Cloned {count(len(branches), 'branch', 'branches')} to ", (str(place), "bold"))


@click.command()
@click.argument("remote", default="origin")
@repository_option
@json_option("One JSON document: a list of branches that moved, with old and new capture.")
def fetch(remote: str, repo: Path | None, as_json: bool) -> None:
    """Get new captures of all branches from REMOTE: a URL, or a name that git knows; default: where this was cloned from."""
    with find_repository(repo) as repository, transfer(stderr()) as progress:
        fetched = repository.fetch(remote, progress=progress)
    if as_json:
        stdout().json([{"branch": moved.branch, "old": moved.old, "new": moved.new} for moved in fetched])
        return
    for moved in fetched:
        stdout().line((moved.branch, "green"), f"  {moved.old[:12] if moved.old else 'new'}  ", (moved.new[:12], "yellow"))
    if not fetched:
        stdout().line("nothing new")


@click.command()
@click.argument("remote", default="origin")
@click.argument("branches", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="The place may have the memory of these processes, and every secret in it.")
@repository_option
@json_option("One JSON document: url, and the branches that it has now.")
def push(remote: str, branches: tuple[str, ...], yes: bool, repo: Path | None, as_json: bool) -> None:
    """Send captures to REMOTE: all branches, or those named. REMOTE is a URL, or a name that git knows; default: where this was cloned from.

    Memory holds passwords and keys. So the first push to a place asks, and fails where there is nobody to ask, without --yes.
    """
    with find_captures(repo) as repository:
        url, known = repository.push_target(remote)
        if not known and not yes and sys.stdin.isatty():
            question = f"Captures hold the memory of your processes, with every secret in it. May {url} have them?"
            click.confirm(question, abort=True, err=True)
            yes = True
        with transfer(stderr()) as progress:
            repository.push(remote, branches, confirmed=yes, progress=progress)
        sent = [branch for branch in repository.branches() if not branches or branch.name in branches]
    if as_json:
        stdout().json({"url": url, "branches": {branch.name: branch.tip for branch in sent}})
    else:
        stdout().line(f"{count(len(sent), 'branch', 'branches')} pushed to {url}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("revisions", nargs=-1)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@repository_option
@json_option("One JSON document: path, bytes.")
def bundle(file: Path, revisions: tuple[str, ...], force: bool, repo: Path | None, as_json: bool) -> None:
    """Write captures with their history into one FILE: all branches and tags, or those named (also A..B, without what A has).

    `vcsimg clone FILE` and `vcsimg fetch FILE` read it. It holds secrets, as the repository does.
    """
    from vcsimg.export import check_replaceable

    if file.exists() and not force:
        raise ExportError(str(file), "the file exists", remedy="Name another, or replace it with --force.")
    check_replaceable(file)
    with find_captures(repo) as repository:
        repository.bundle(file, revisions)
    if as_json:
        stdout().json({"path": str(file.absolute()), "bytes": file.stat().st_size})
    else:
        stdout().line((str(file), "bold"), f"  {size(file.stat().st_size)}")
