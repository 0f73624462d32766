"""Author and committer of a capture: whom git knows as the user, else the login name at this host."""

from __future__ import annotations

import os
import pwd
import re
import socket
import time

import pygit2

_UNSAFE = re.compile(r"[<>\n\0]")


def identity(repo: pygit2.Repository, seconds: float) -> str:
    """`Name <mail> SECONDS ZONE` for a time in seconds since the epoch, in the local time zone. Git knows none before."""
    seconds = max(0.0, seconds)
    name, mail = _configured(repo, "user.name"), _configured(repo, "user.email")
    if not name or not mail:
        try:
            login = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            login = f"user{os.getuid()}"
        name, mail = name or login, mail or f"{login}@{socket.gethostname()}"
    offset = time.localtime(seconds).tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}{abs(offset) % 60:02d}"
    return f"{_clean(name)} <{_clean(mail)}> {int(seconds)} {zone}"


def _configured(repo: pygit2.Repository, key: str) -> str:
    try:
        return str(repo.config[key])
    except (KeyError, pygit2.GitError):
        return ""


def _clean(text: str) -> str:
    """Without what would end a name or an address in a commit, nor what git strips from their ends."""
    return _UNSAFE.sub("", text).strip(" .,:;\"'\\") or "unknown"
