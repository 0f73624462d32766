"""The git command, for what libgit2 cannot do or git does better: transport, repacking, its own fsck."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vcsimg.errors import StoreError


def run(path: Path, *arguments: str | Path, text: str | None = None, progress: bool = False) -> str:
    """Run git in a repository and return what it prints. `text` is its input; `progress`: its messages go to our stderr.

    Raises StoreError with git's last words.
    """
    done = attempt(path, *arguments, text=text, progress=progress)
    if done.returncode:
        words = [line for line in (done.stderr or "").splitlines() if line.strip()]
        last = "; ".join(words[-3:]) or f"exit status {done.returncode}"
        raise StoreError(str(path), f"git {arguments[0]} failed: {last}")
    return done.stdout


def attempt(
    path: Path, *arguments: str | Path, text: str | None = None, progress: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run git in a repository, whatever comes of it. Raises StoreError when there is no git."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    environment["LC_ALL"] = "C.UTF-8"
    try:
        return subprocess.run(
            ["git", f"--git-dir={path}", *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            stdout=subprocess.PIPE,
            stderr=None if progress else subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            umask=0o077,
            check=False,
        )
    except FileNotFoundError:
        raise StoreError(str(path), "the git command is not installed", remedy="apt-get install git") from None
