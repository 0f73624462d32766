"""Section `unsaved`: what the process has and the capture does not hold, so that no one has to find out by a restore gone wrong."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Item


@dataclass(frozen=True, slots=True)
class Unsaved(Item, kind="unsaved"):
    """`resource` names it, as in `fd 5` or `thread 4243 filters`; `reason` says in one sentence why."""

    resource: str
    reason: str
