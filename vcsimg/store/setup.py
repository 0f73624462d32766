"""Making a repository, and recognising one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel

from vcsimg.errors import NewerFormat, RepositoryMissing, StoreError
from vcsimg.store import cipher
from vcsimg.store.layout import FORMAT

DEFAULT_NAME = ".vcsimg"
"""The repository that `init` makes in a folder when it is given no path, and that `discover` finds there."""

_ATTRIBUTES = """\
# Blobs of memory: shown by `vcsimg textconv`; compressed already, so git need not look for deltas among them.
*.key diff=vcsimg -delta
*.xor diff=vcsimg -delta
*.patch diff=vcsimg -delta
*.zst binary -delta
"""

_CONFIG: tuple[tuple[str, str], ...] = (
    ("vcsimg.format", str(FORMAT)),
    ("diff.vcsimg.textconv", "vcsimg textconv"),
    ("diff.vcsimg.binary", "true"),
    # Memory holds secrets: whatever git writes here later, under whatever umask, is for the owner alone.
    ("core.sharedRepository", "0600"),
    # vcsimg consolidates its packs itself; git's automatic gc would repack a recording while it grows.
    ("gc.auto", "0"),
    ("receive.autogc", "false"),
    # A history is not rewritten by a push from elsewhere.
    ("receive.denyNonFastForwards", "true"),
    # What a kill -9 or a power cut leaves behind must be found, not trusted.
    ("transfer.fsckObjects", "true"),
    # What is pushed or fetched stays in packs, which are consolidated, and does not become thousands of loose objects.
    ("transfer.unpackLimit", "1"),
    # A light clone of this repository asks for the blobs of single captures.
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.allowAnySHA1InWant", "true"),
    ("core.fsync", "all"),
)


@contextmanager
def private() -> Iterator[None]:
    """New files of this process are for their owner alone: libgit2 knows no other way to say so."""
    old = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(old)


@cache
def skip_forbidden_settings() -> None:
    """The user's settings of git count as absent where they may not be read, as they do for git itself; libgit2 would fail. It happens
    where HOME is another user's: su and sudo can leave it so."""
    for level, name in ((ConfigLevel.GLOBAL, ".gitconfig"), (ConfigLevel.XDG, "config")):
        for folder in str(pygit2.settings.search_path[level]).split(os.pathsep):
            try:
                with open(os.path.join(folder, name), "rb"):
                    pass
            except PermissionError:
                pygit2.settings.search_path[level] = ""
            except OSError:
                continue


def make(path: Path) -> None:
    """Make an empty bare repository, or complete the configuration of one. Formats are pinned to those libgit2 can read.

    Raises StoreError when a repository is there that is not bare or not one of vcsimg.
    """
    skip_forbidden_settings()
    if (path / "HEAD").exists() and not is_ours(path):
        raise StoreError(str(path), "a git repository that is not one of vcsimg", remedy="Choose another path.")
    if path.exists() and not path.is_dir():
        raise StoreError(str(path), "not a folder", remedy="Choose another path.")
    with private():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (path / "HEAD").exists() and any(path.iterdir()):
            raise StoreError(str(path), "the folder is not empty", remedy="Choose another path.")
        repo = pygit2.init_repository(str(path), bare=True, initial_head="main")
        path.chmod(0o700)
        for name, value in _CONFIG:
            repo.config[name] = value
        (path / "info").mkdir(exist_ok=True)
        (path / "info" / "attributes").write_text(_ATTRIBUTES)
        # Inside a checkout of source: `git add` there must not take the secrets in here.
        (path / ".gitignore").write_text("*\n")
        work_directory(path)


@contextmanager
def new(path: Path, *, remedy: str = "Choose another path.") -> Iterator[None]:
    """Make an empty repository, for the block to fill: if that fails, nothing is left of it. Raises StoreError when there is one already, or
    anything else."""
    if (path / "HEAD").exists():
        raise StoreError(str(path), "there is a repository already", remedy=remedy)
    existed = path.exists()
    if existed and (not path.is_dir() or any(path.iterdir())):
        make(path)  # refuses it
    try:
        make(path)
        yield
    except BaseException:
        if existed:
            for child in path.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
        raise


def work_directory(path: Path) -> Path:
    """Our own folder inside the repository: locks, and packs that are not finished. Out of reach of git's own clean-up."""
    work = path / "vcsimg"
    work.mkdir(mode=0o700, exist_ok=True)
    return work


def git_directory(path: Path) -> Path | None:
    """The git directory that a path means: itself, or the .git or .vcsimg in it. None when there is none."""
    for candidate in (path, path / DEFAULT_NAME, path / ".git"):
        if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir() and (candidate / "refs").is_dir():
            return candidate
    return None


def is_ours(path: Path) -> bool:
    """Whether a git directory is one of vcsimg: by its configuration, or by what its HEAD holds (a clone by git), or, where that is unborn,
    another branch (a bare repository that was pushed to)."""
    try:
        repo = pygit2.Repository(str(path))
        if "vcsimg.format" in repo.config:
            return True
        if not repo.head_is_unborn:
            return _is_capture(repo.head.peel(pygit2.Commit))
        return any(_is_capture(repo.branches[name].peel(pygit2.Commit)) for name in repo.branches.local)
    except (pygit2.GitError, KeyError, ValueError):
        return False


def _is_capture(commit: pygit2.Commit) -> bool:
    return format_of(commit).startswith((b"vcsimg ", cipher.MAGIC))


def format_of(commit: pygit2.Object) -> bytes:
    """What a capture's file `format` holds; nothing, where there is no such file. Raises KeyError in a light clone that does not have it."""
    tree = commit.peel(pygit2.Tree)
    entry = tree["format"] if "format" in tree else None  # noqa: SIM401 (get() does not tell one that is not there from none)
    return entry.data if isinstance(entry, pygit2.Blob) else b""


def is_blank(path: Path) -> bool:
    """Whether a git directory is bare and has no branch yet: nothing there can be taken for captures, or be lost."""
    try:
        repo = pygit2.Repository(str(path))
        return repo.is_bare and not any(True for _ in repo.branches.local)
    except (pygit2.GitError, ValueError):
        return True  # open_git() says what is wrong with it


def find(start: Path, explicit: Path | None) -> Path:
    """The git directory to use: `explicit`, else the nearest one of vcsimg from `start` upward. Raises RepositoryMissing."""
    skip_forbidden_settings()
    if explicit is not None:
        try:
            found = git_directory(explicit)
        except PermissionError:
            raise StoreError(str(explicit), "may not be read", remedy="It is another user's.") from None
        if found is None:
            raise RepositoryMissing(str(explicit))
        if not is_ours(found) and not is_blank(found):
            raise StoreError(
                str(explicit),
                "a git repository that is not one of vcsimg",
                remedy="Make one with `vcsimg init`, or name another with --repo or VCSIMG_REPO.",
            )
        return found
    start = start.absolute()
    for folder in (start, *start.parents):
        with suppress(PermissionError):  # another user's
            found = git_directory(folder)
            if found is not None and is_ours(found):
                return found
    raise RepositoryMissing(str(start))


def open_git(path: Path) -> pygit2.Repository:
    """The repository at a git directory. Raises RepositoryMissing, StoreError, NewerFormat."""
    if git_directory(path) is None:
        raise RepositoryMissing(str(path))
    try:
        # Of a partial clone's objects, those that are missing are fetched before they are read: see remotes.
        pygit2.settings.set_extensions(["partialclone"])
        repo = pygit2.Repository(str(path))
    except pygit2.GitError as error:
        remedy = None
        if "not owned by current user" in str(error):
            remedy = f"If you trust its owner: git config --global --add safe.directory {path}"
        raise StoreError(str(path), f"cannot be opened: {error}", remedy=remedy) from None
    config = repo.config
    if "vcsimg.format" in config and config.get_int("vcsimg.format") > FORMAT:
        raise NewerFormat(str(path), config.get_int("vcsimg.format"), FORMAT)
    return repo
