"""The git command, for what libgit2 cannot do or git does better: transport, repacking, its own fsck."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from vcsimg.errors import StoreError

Progress = Callable[[str, int, int], None]
"""progress(what, done, total): what git is doing, in its own words, such as ("Receiving objects", 120, 4500)."""

_COUNTED = re.compile(r"(?:remote: )?([A-Z][A-Za-z ]{2,40}): +[0-9]+% \(([0-9]+)/([0-9]+)\)")
_ADVICE = re.compile(r"hint:|Please make sure you have the correct access rights|and the repository exists\.")
_ENDS = re.compile(rb"[\r\n]")
_ANOTHER_REPOSITORY = frozenset(
    (
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_COMMON_DIR",
        "GIT_INDEX_FILE",
        "GIT_PREFIX",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_GRAFT_FILE",
        "GIT_SHALLOW_FILE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_REPLACE_REF_BASE",
    )
)
"""What `git rev-parse --local-env-vars` names, but for settings: in a hook these mean the repository that the hook is of."""


def run(path: Path, *arguments: str | Path, text: str | None = None) -> str:
    """Run git in a repository and return what it prints. `text` is its input. Raises StoreError with git's last words."""
    done = attempt(path, *arguments, text=text)
    if done.returncode:
        raise _failed(path, arguments, done.returncode, (done.stderr or "").splitlines())
    return done.stdout


def attempt(path: Path, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run git in a repository, whatever comes of it. Raises StoreError when there is no git."""
    try:
        return subprocess.run(
            _command(path, arguments),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            umask=0o077,
            check=False,
        )
    except FileNotFoundError:
        raise _no_git(path) from None


def feed(path: Path, file: Path, *arguments: str | Path) -> None:
    """Run git in a repository with a file as its input, whatever comes of it. Raises StoreError when there is no git, OSError."""
    try:
        with file.open("rb") as stream:
            subprocess.run(
                _command(path, arguments), stdin=stream, capture_output=True, env=_environment(), umask=0o077, check=False
            )
    except FileNotFoundError:
        raise _no_git(path) from None


def watch(path: Path, *arguments: str | Path, progress: Progress | None, text: str = "") -> None:
    """Run git in a repository, with a call of `progress` whenever it says how far it is (options must make it say so).

    `text` is its input; what it prints on standard output is lost. Raises StoreError with git's last words.
    """
    words: list[str] = []
    with tempfile.TemporaryFile() as given:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                _command(path, arguments),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                umask=0o077,
            )
        except FileNotFoundError:
            raise _no_git(path) from None
    try:
        assert process.stderr is not None
        for line in _lines(process.stderr):
            found = _COUNTED.match(line)
            if found is None:
                words.append(line)
            elif progress is not None:
                progress(found[1], int(found[2]), int(found[3]))
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        if process.stderr is not None:
            process.stderr.close()
    if status:
        raise _failed(path, arguments, status, words)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """What git says, as it says it: lines, and those that it writes over again and again."""
    rest = b""
    while block := os.read(stream.fileno(), 4096):
        *whole, rest = _ENDS.split(rest + block)
        yield from (line.decode("utf-8", "replace") for line in whole)
    yield rest.decode("utf-8", "replace")


def _command(path: Path, arguments: tuple[str | Path, ...]) -> list[str | Path]:
    return ["git", f"--git-dir={path}", *arguments]


def _environment() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in _ANOTHER_REPOSITORY}, "LC_ALL": "C.UTF-8"}


def _failed(path: Path, arguments: tuple[str | Path, ...], status: int, words: list[str]) -> StoreError:
    said = [line.strip() for line in words if line.strip() and not _ADVICE.match(line)]
    command = next(str(word) for word in _without_settings(arguments))
    return StoreError(str(path), f"git {command} failed: {'; '.join(said[-3:]) or f'exit status {status}'}")


def _without_settings(arguments: tuple[str | Path, ...]) -> tuple[str | Path, ...]:
    while arguments[:1] == ("-c",):
        arguments = arguments[2:]
    return arguments


def _no_git(path: Path) -> StoreError:
    return StoreError(str(path), "the git command is not installed", remedy="apt-get install git")
