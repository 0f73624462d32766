"""Walking a history."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import pygit2


def newest_first(repo: pygit2.Repository, starts: Iterable[str]) -> Iterator[pygit2.Commit]:
    """The commits that `starts` (ids) come from, themselves included, newest first; a commit always before its parents, however many
    there are in a second (libgit2's walk by time mixes those up). Nothing is read ahead.
    """
    queue: list[tuple[int, int, str]] = []
    seen: set[str] = set()

    def add(name: str) -> None:
        if name not in seen:
            seen.add(name)
            heapq.heappush(queue, (-repo[name].commit_time, len(seen), name))

    for start in starts:
        add(start)
    while queue:
        _, _, name = heapq.heappop(queue)
        commit = repo[name]
        yield commit
        for parent in commit.parent_ids:
            add(str(parent))
