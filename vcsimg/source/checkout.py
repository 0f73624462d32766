"""Which source revision a program was started from."""

from __future__ import annotations

from pathlib import Path

import pygit2


def revision_at(folder: Path, moment: float) -> str | None:
    """The commit (hexadecimal) that HEAD of the git checkout around `folder` named at `moment` (seconds since the epoch), from
    its reflog; None outside of a checkout, in one without commits, or if it may not be read. A bare repository is no checkout."""
    try:
        path = pygit2.discover_repository(str(folder))
        if path is None:
            return None
        repository = pygit2.Repository(path)
        if repository.is_bare or repository.head_is_unborn:
            return None
        head = repository.references.get("HEAD")
        entries = list(head.log()) if head is not None else []  # newest first
        for entry in entries:
            if entry.committer.time <= moment:
                return str(entry.oid_new)
        # Started before the reflog begins: what HEAD named first is the nearest that is known.
        return str(entries[-1].oid_old) if entries and int(str(entries[-1].oid_old), 16) else str(repository.head.target)
    except (pygit2.GitError, KeyError, ValueError, OSError):
        return None
