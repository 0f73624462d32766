"""When a chain is merged and when it is re-based.

Both must stay bounded: the bytes that are written twice, and what a reader must read. Deltas are merged in tiers, as in a
log-structured merge tree: FAN single ones become one of the next tier, and UPPER of a tier one of the next. XOR merges
shrink where deltas hit the same pages, and small deltas are mostly header, so their merge costs little; deltas that are
large and apart only move. Those wait until WIDE of them are there: a reader pays about 64 KiB of reading for each object,
which is what WIDE weighs against. When what deltas changed outweighs the content some times over, a new keyframe takes the
place of all. What they added (pages without content before) counts as content: a growing heap is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vcsimg.image.units import PAGES_PER_PIECE
from vcsimg.store.layout import keyframes
from vcsimg.store.objects import Oid

FAN = 16
_UPPER_BITS = 3
UPPER = 1 << _UPPER_BITS
WIDE = 48
_SMALL_DELTA = 4096
_OUTWEIGH = 4
_LEAST = 8 << 10


@dataclass(frozen=True, slots=True)
class Weighed:
    """A link of a chain as the policy sees it: the version that it leads to, its kind, its id, bytes, pages named, and how many of them
    had no own content before."""

    version: int
    kind: str
    oid: Oid
    size: int
    pages: int
    fresh: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge the links [first, last) into one."""

    first: int
    last: int


class Rebase:
    """Replace all links by one keyframe."""


def plan(links: Sequence[Weighed], number: int) -> Merge | Rebase | None:
    """What to do with a chain (keyframes first) before a delta is appended to it; None: nothing.

    `number` of the piece staggers the decision: pieces that change together are not all due at the same capture.
    """
    keys = keyframes(link.kind for link in links)
    if len(links) < keys + 2:
        return None
    stagger = _stagger(number)
    added = changed = 0
    for link in links[keys:]:
        if link.fresh:
            added += link.size * link.fresh // link.pages
        changed += link.size
    changed -= added
    kept = sum(link.size for link in links[:keys]) + added
    if changed > max(_LEAST, kept * _OUTWEIGH) * (1 + stagger / (4 * FAN)):
        return Rebase()
    return _due(links, keys, stagger)


def rest(links: Sequence[Weighed], number: int) -> int:
    """How many times more plan() will say None of a chain of which it just did, if small deltas are appended: as long as too few of them stand
    alone. A new keyframe may be due some deltas sooner."""
    alone = 0
    for one, two in pairwise(reversed(links)):
        if one.version - two.version >= FAN:
            break
        alone += 1
    return max(0, FAN + _stagger(number) - 1 - alone)


def _stagger(number: int) -> int:
    return (number * 0x9E3779B1 >> 7) % FAN


def _due(links: Sequence[Weighed], keys: int, stagger: int) -> Merge | None:
    """The youngest tier that is full. Tiers descend along the chain, so each is a run of links."""
    last = len(links)
    while last > keys:
        tier = _tier(links[last - 1].version - links[last - 2].version)
        bound = _bound(tier)
        first = last - 1
        while first > keys and links[first - 1].version - links[first - 2].version < bound:
            first -= 1
        if last - first >= _limit(links[first:last], UPPER if tier else FAN + stagger):
            return Merge(first, last)
        last = first
    return None


def _limit(run: Sequence[Weighed], fan: int) -> int:
    size = sum(link.size for link in run) // len(run)
    overlap = sum(link.pages for link in run) > 2 * PAGES_PER_PIECE
    return fan if size <= _SMALL_DELTA or overlap else WIDE


def _tier(weight: int) -> int:
    tier = 0
    while weight >= _bound(tier):
        tier += 1
    return tier


def _bound(tier: int) -> int:
    """A delta of this tier stands for fewer versions."""
    return FAN << tier * _UPPER_BITS
