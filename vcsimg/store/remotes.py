"""Other copies of a repository: cloning, pushing, fetching, bundles; all by the git command, over whatever it can reach.

A *light* clone keeps commits and trees, and fetches what a capture's files hold when the capture is loaded: git calls this
a partial clone (filter blob:none). libgit2 sees its missing objects as missing; this module fetches them first, all those
of a capture in one request, as git itself does for a checkout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pygit2

from vcsimg.errors import StoreError
from vcsimg.store import gitcommand, setup
from vcsimg.store.objects import Objects, Oid

ORIGIN = "origin"
_KNOWN = "vcsimg.pushed"


def clone(url: str, path: Path, *, light: bool, depth: int | None, progress: bool) -> None:
    """Make the repository at `path` a copy of the one at `url`: all branches under their names, and tags. Raises StoreError."""
    setup.make(path)
    run = gitcommand.run
    run(path, "remote", "add", ORIGIN, _absolute(url))
    run(path, "config", f"remote.{ORIGIN}.fetch", "refs/heads/*:refs/heads/*")
    if light:
        run(path, "config", "core.repositoryformatversion", "1")
        run(path, "config", f"remote.{ORIGIN}.promisor", "true")
        run(path, "config", f"remote.{ORIGIN}.partialclonefilter", "blob:none")
    fetch(path, ORIGIN, depth=depth, progress=progress)
    head = run(path, "ls-remote", "--symref", ORIGIN, "HEAD").split()
    if len(head) > 1 and head[0] == "ref:":
        run(path, "symbolic-ref", "HEAD", head[1])


def fetch(path: Path, remote: str, *, depth: int | None = None, progress: bool = False) -> None:
    """Get new captures of all branches, and tags. A branch that went another way there is refused. Raises StoreError."""
    options = [f"--depth={depth}"] if depth is not None else []
    loud = ["--progress"] if progress else ["-q"]
    gitcommand.run(path, "fetch", *loud, "--tags", "--update-head-ok", *options, remote, progress=progress)


def url_of(path: Path, remote: str) -> str:
    """Where a remote is: its configured URL, or `remote` itself when it is one."""
    done = gitcommand.attempt(path, "remote", "get-url", "--push", remote)
    return done.stdout.strip() if done.returncode == 0 else _absolute(remote)


def is_known(path: Path, url: str) -> bool:
    """Whether captures were pushed to this place before."""
    return url in gitcommand.attempt(path, "config", "--get-all", _KNOWN).stdout.splitlines()


def push(path: Path, remote: str, branches: Sequence[str], *, confirmed: bool, progress: bool) -> None:
    """Send branches (none named: all) and their captures to a remote.

    Memory holds passwords and keys: the first push to a place needs `confirmed`. Raises StoreError.
    """
    url = url_of(path, remote)
    if not confirmed and not is_known(path, url):
        raise StoreError(
            str(path),
            f"captures were never pushed to {url}: they hold the memory of your processes, with every secret in it",
            remedy="Say --yes if that place may have them.",
        )
    specs = [f"refs/heads/{branch}:refs/heads/{branch}" for branch in branches] or ["refs/heads/*:refs/heads/*"]
    gitcommand.run(path, "push", "--progress" if progress else "-q", remote, *specs, progress=progress)
    if not is_known(path, url):
        gitcommand.run(path, "config", "--add", _KNOWN, url)


def bundle(path: Path, file: Path, revisions: Sequence[str]) -> None:
    """Write captures with their history into one file that git can clone and fetch from. Raises StoreError."""
    gitcommand.run(path, "bundle", "create", "-q", file.absolute(), *(revisions or ["--all"]))
    file.chmod(0o600)


def promisor(repo: pygit2.Repository) -> str | None:
    """The remote that has what a light clone lacks; None in a full repository."""
    for remote in repo.remotes.names():
        key = f"remote.{remote}.promisor"
        if remote is not None and key in repo.config and repo.config.get_bool(key):
            return str(remote)
    return None


def complete(repo: pygit2.Repository, objects: Objects, path: Path, remote: str, root: Oid, where: str) -> int:
    """Fetch every object of a capture's tree that is missing here. Returns how many. Raises StoreError."""
    missing: list[str] = []
    odb = repo.odb

    def walk(tree: Oid) -> None:
        for entry in objects.tree(tree, where).values():
            if entry.is_tree:
                walk(entry.oid)
            elif not odb.exists(pygit2.Oid(raw=entry.oid)):
                missing.append(entry.oid.hex())

    walk(root)
    if missing:
        fetch_objects(path, remote, missing)
    return len(missing)


def fetch_objects(path: Path, remote: str, names: Sequence[str]) -> None:
    """Fetch objects by id, as git does when a partial clone lacks them (partial-clone(7)). Raises StoreError."""
    gitcommand.run(
        path,
        "-c",
        "fetch.negotiationAlgorithm=noop",
        "fetch",
        "-q",
        remote,
        "--no-tags",
        "--no-write-fetch-head",
        "--recurse-submodules=no",
        "--filter=blob:none",
        "--stdin",
        text="\n".join(names) + "\n",
    )


def _absolute(url: str) -> str:
    """A path on this machine as one that means the same from anywhere, and that a filter works on.

    A bundle is a plain file.
    """
    if "://" in url or (":" in url.split("/")[0]):
        return url
    path = Path(url).absolute()
    return str(path) if path.is_file() else f"file://{path}"
