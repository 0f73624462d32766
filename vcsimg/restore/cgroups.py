"""Control groups, cgroups(7): restored processes run in those of whoever restores them, whose limits and accounts are meant for that. They are
not moved; where theirs were others, a note says so."""

from __future__ import annotations

from collections.abc import Sequence

from vcsimg.image.sections.item import select
from vcsimg.image.sections.places import Cgroup
from vcsimg.kernel import procfs
from vcsimg.restore.skeleton import Skeleton

_NAMED = "name="
"""Hierarchies that limit nothing: they only hold processes together."""


def note_on_cgroups(skeletons: Sequence[Skeleton], notes: list[str]) -> None:
    """One for all processes."""
    moves: dict[str, list[int]] = {}
    for skeleton in skeletons:
        was = {group.controllers: group.path for group in select(skeleton.process.section("cgroup"), Cgroup)}
        now = _groups(skeleton.tid) if was else {}
        parts = [
            f"{path} ({controllers})" if controllers else path
            for controllers, path in was.items()
            if not controllers.startswith(_NAMED) and now.get(controllers) != path
        ]
        if parts:
            moves.setdefault(" and ".join(parts), []).append(skeleton.pid)
    if moves:
        were = "; ".join(f"process {pids[0]}{_more(len(pids) - 1)} in {groups}" for groups, pids in moves.items())
        notes.append(
            f"the processes run in the cgroup of vcsimg, under its limits; when they were captured, they were elsewhere: {were}"
        )


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def _groups(pid: int) -> dict[str, str]:
    """Paths by controllers."""
    lines = procfs.read(pid, "cgroup").decode(errors="surrogateescape").splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
