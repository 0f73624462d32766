"""What commits say of captures."""

from __future__ import annotations

from dataclasses import dataclass

import pygit2

from vcsimg.store import message, names, refs


@dataclass(frozen=True)
class Capture:
    """One commit: `time` in seconds since the epoch; `subject` and `body` of its message without the trailers."""

    id: str
    parents: tuple[str, ...]
    time: float
    subject: str
    body: str
    trailers: dict[str, str]
    branch: str | None = None


def capture_of(commit: pygit2.Commit, branch: str | None = None) -> Capture:
    """A commit's capture. `branch`: the one whose tip it is."""
    subject, body, trailers = message.parse(commit.message)
    parents = tuple(str(parent) for parent in commit.parent_ids)
    return Capture(str(commit.id), parents, float(commit.commit_time), subject, body, trailers, branch)


def branch_of(repo: pygit2.Repository, pid: int, start_ticks: int, boot_id: str) -> str | None:
    """The branch on which this very process (not another with its pid) was captured last, or that was begun for it; None if there is none."""
    found: tuple[int, str] | None = None
    for branch in refs.branches(repo):
        if not names.may_be_of(branch.name, pid):
            continue
        if refs.process_of(repo, branch.name) == (pid, start_ticks, boot_id):
            return branch.name
        commit = repo[branch.tip].peel(pygit2.Commit)
        _, _, trailers = message.parse(commit.message)
        same = (trailers.get("Process"), trailers.get("Process-Start"), trailers.get("Boot-Id"))
        if same == (str(pid), str(start_ticks), boot_id) and (found is None or commit.commit_time > found[0]):
            found = (commit.commit_time, branch.name)
    return found[1] if found else None
