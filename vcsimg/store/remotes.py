"""Other copies of a repository: cloning, pushing, fetching, bundles; all by the git command, over whatever it can reach.

A *light* clone keeps commits and trees, and fetches what a capture's files hold when the capture is loaded: git calls this
a partial clone (filter blob:none). libgit2 sees its missing objects as missing; this module fetches them first, all those
of a capture in one request, as git itself does for a checkout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pygit2

from vcsimg.errors import StoreError
from vcsimg.store import cipher, gitcommand, refs, setup
from vcsimg.store.gitcommand import Progress
from vcsimg.store.objects import Objects, Oid

ORIGIN = "origin"
ALL = "refs/heads/*:refs/heads/*"
_KNOWN = "vcsimg.pushed"


@dataclass(frozen=True)
class Fetched:
    """A branch that a fetch has moved: from `old` (None: it is new) to `new`."""

    branch: str
    old: str | None
    new: str


def clone(
    url: str,
    path: Path,
    *,
    light: bool,
    depth: int | None,
    progress: Progress | None,
    keys: tuple[Path | None, str | None] | None = None,
) -> None:
    """Make the repository at `path` a copy of the one at `url`: all branches under their names, and tags.

    `keys`: the file and the command that have the key of an encrypted one. If it fails, nothing is left of it. Raises StoreError.
    """
    with setup.new(path, remedy="Choose another path, or use `vcsimg fetch` in it."):
        _fill(url, path, light=light, depth=depth, progress=progress)
        if keys is not None:
            repo = pygit2.Repository(str(path))
            cipher.remember(repo, key_file=keys[0], key_command=keys[1])
            if not cipher.required(repo):
                raise StoreError(url, "its captures are not encrypted, and a key was named", remedy="Clone it without a key.")


def _fill(url: str, path: Path, *, light: bool, depth: int | None, progress: Progress | None) -> None:
    run = gitcommand.run
    run(path, "remote", "add", ORIGIN, _absolute(url))
    run(path, "config", f"remote.{ORIGIN}.fetch", ALL)
    if light:
        run(path, "config", "core.repositoryformatversion", "1")
        run(path, "config", f"remote.{ORIGIN}.promisor", "true")
        run(path, "config", f"remote.{ORIGIN}.partialclonefilter", "blob:none")
    fetch(path, ORIGIN, depth=depth, progress=progress)
    head = run(path, "ls-remote", "--symref", ORIGIN, "HEAD").split()
    if len(head) > 1 and head[0] == "ref:":
        run(path, "symbolic-ref", "HEAD", head[1])


def fetch(path: Path, remote: str, *, depth: int | None = None, progress: Progress | None = None) -> list[Fetched]:
    """Get new captures of all branches, and tags. A branch that went another way there is refused. Raises StoreError."""
    before = _tips(path)
    options = [f"--depth={depth}"] if depth is not None else []
    loud = "--progress" if progress is not None else "--no-progress"  # -q would not say what was refused
    try:
        # Not even if the user's configuration says so: what is not there would be deleted here, recordings of this machine too.
        options += ["--no-prune", "--no-prune-tags"]
        gitcommand.watch(path, "fetch", loud, "--tags", "--update-head-ok", *options, remote, ALL, progress=progress)
    except StoreError as error:
        raise _explained(path, remote, error) from None
    repo = pygit2.Repository(str(path))
    if not before and not cipher.required(repo) and _holds_sealed(path, remote):
        cipher.adopt(repo)
    newest = refs.newest(repo)
    if repo.head_is_unborn and newest is not None:
        gitcommand.run(path, "symbolic-ref", "HEAD", refs.PREFIX + newest.name)
    return [Fetched(name, before.get(name), new) for name, new in _tips(path).items() if before.get(name) != new]


def _tips(path: Path) -> dict[str, str]:
    return {branch.name: branch.tip for branch in refs.branches(pygit2.Repository(str(path)))}


def _holds_sealed(path: Path, remote: str) -> bool:
    """Whether any of what was fetched is encrypted: who adds a branch that is not shall not have new captures of others made in the clear. Raises
    StoreError when there is no capture at all."""
    tips = _tips(path).values()
    files = gitcommand.run(
        path, "cat-file", "--batch-check=%(objectname) %(objecttype)", text="".join(f"{tip}:format\n" for tip in tips)
    )
    names = {words[0] for line in files.splitlines() if (words := line.split())[-1] == "blob"}
    # In a light clone, git fetches them; they are one for all captures, or nearly so.
    texts = [gitcommand.attempt(path, "cat-file", "blob", name).stdout for name in names]
    if tips and not any(text.startswith(("vcsimg ", "VXE")) for text in texts):
        raise StoreError(url_of(path, remote), "no repository of captures", remedy="Name one that vcsimg has made.")
    return any(text.startswith("VXE") for text in texts)


def url_of(path: Path, remote: str) -> str:
    """Where a remote is: its configured URL, or `remote` itself when it is one."""
    done = gitcommand.attempt(path, "remote", "get-url", "--push", remote)
    return done.stdout.strip() if done.returncode == 0 else _absolute(remote)


def is_known(path: Path, url: str) -> bool:
    """Whether captures were pushed to this place before."""
    return url in gitcommand.attempt(path, "config", "--get-all", _KNOWN).stdout.splitlines()


def push(path: Path, remote: str, branches: Sequence[str], *, confirmed: bool, progress: Progress | None) -> None:
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
    specs = [f"refs/heads/{branch}:refs/heads/{branch}" for branch in branches] or [ALL]
    loud = "--progress" if progress is not None else "--no-progress"  # -q would not say what was refused
    try:
        gitcommand.watch(path, "push", loud, remote, *specs, progress=progress)
    except StoreError as error:
        raise _explained(path, remote, error) from None
    if not is_known(path, url):
        gitcommand.run(path, "config", "--add", _KNOWN, url)


def _explained(path: Path, remote: str, error: StoreError) -> StoreError:
    """The error of a transfer, with what can be done about it."""
    text = str(error).removeprefix(f"{path}: ")
    remedy = None
    if "does not appear to be a git repository" in text and "://" not in remote and "/" not in remote:
        known = remote in pygit2.Repository(str(path)).remotes.names()
        if known:
            remedy = f"There is no git repository at {url_of(path, remote)}."
        else:
            remedy = f"Name a URL or a path, or have git remember one as {remote}: git -C {path} remote add {remote} URL"
    elif "non-fast-forward" in text or "fetch first" in text or "[rejected]" in text or "denying non-fast-forward" in text:
        remedy = "A branch went another way there: it was pruned, or captured from elsewhere. Use a branch of another name, or clone anew."
    elif "does not match any" in text:
        remedy = "`vcsimg log --all` shows the names of branches."
    return StoreError(str(path), text, remedy=remedy)


def bundle(path: Path, file: Path, revisions: Sequence[str]) -> None:
    """Write captures with their history into one file that git can clone and fetch from. Raises StoreError."""
    if pygit2.Repository(str(path)).is_shallow:
        raise StoreError(
            str(path),
            "only the newest captures are here, and a bundle of these alone cannot be read",
            remedy=f"Get the others first: git -C {path} fetch --unshallow",
        )
    gitcommand.run(path, "bundle", "create", "-q", file.absolute(), *(revisions or ["--all"]))
    file.chmod(0o600)


def promisor(repo: pygit2.Repository) -> str | None:
    """The remote that has what a light clone lacks; None in a full repository."""
    for remote in repo.remotes.names():
        key = f"remote.{remote}.promisor"
        if remote is not None and key in repo.config and repo.config.get_bool(key):
            return str(remote)
    return None


def missing(repo: pygit2.Repository, objects: Objects, root: Oid, where: str) -> Iterator[Oid]:
    """Files of a capture's tree that a light clone lacks. Raises DamagedImage, HostileImage."""

    def walk(tree: Oid) -> Iterator[Oid]:
        for entry in objects.tree(tree, where).values():
            if entry.is_tree:
                yield from walk(entry.oid)
            elif lacks(repo, entry.oid):
                yield entry.oid

    yield from walk(root)


def lacks(repo: pygit2.Repository, oid: Oid) -> bool:
    """Whether an object is not here."""
    return not repo.odb.exists(pygit2.Oid(raw=oid))


def fetch_objects(path: Path, remote: str, names: Sequence[Oid], progress: Progress | None = None) -> None:
    """Fetch objects by id, as git does when a partial clone lacks them (partial-clone(7)). Raises StoreError."""
    gitcommand.watch(
        path,
        "-c",
        "fetch.negotiationAlgorithm=noop",
        "fetch",
        "--progress" if progress is not None else "-q",
        remote,
        "--no-tags",
        "--no-write-fetch-head",
        "--recurse-submodules=no",
        "--filter=blob:none",
        "--stdin",
        text="\n".join(name.hex() for name in names) + "\n",
        progress=progress,
    )


def _absolute(url: str) -> str:
    """A path on this machine as one that means the same from anywhere, and that a filter works on.

    A bundle is a plain file.
    """
    if "://" in url or (":" in url.split("/")[0]):
        return url
    path = Path(url).absolute()
    return str(path) if path.is_file() else f"file://{path}"
