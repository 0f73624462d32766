"""Which records of two sections differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

from vcsimg.image.records import Record

Pair = tuple[Record | None, Record | None]


def changed_records(a: Sequence[Record], b: Sequence[Record]) -> Iterator[Pair]:
    """(before, after) of each record that is not in both: changed, removed (no after) or added (no before).

    Removed and added records are told as one that changed if they are the only ones of their kind with the same first value
    (the descriptor, signal or pid that the record is about), or else the only ones of their kind. Order within a section counts
    for nothing. First those of `a`, in its order, then those that are new.
    """
    gone, new = _without(a, b), _without(b, a)
    partner: dict[int, int] = {}
    for key in (_subject, _kind):
        _pair(gone, new, key, partner)
    for index, record in enumerate(gone):
        yield record, new[partner[index]] if index in partner else None
    paired = set(partner.values())
    yield from ((None, record) for index, record in enumerate(new) if index not in paired)


def _without(records: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    """The records that are not among the others, each as often as it is too many."""
    left = Counter(record.line() for record in others)
    out = []
    for record in records:
        line = record.line()
        if left[line]:
            left[line] -= 1
        else:
            out.append(record)
    return out


def _pair(gone: Sequence[Record], new: Sequence[Record], key: Callable[[Record], Hashable], partner: dict[int, int]) -> None:
    """Add to `partner` (index in `gone` to index in `new`) those that alone have a key on either side."""
    sides: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    taken = set(partner.values())
    for index, record in enumerate(gone):
        if index not in partner:
            sides[key(record)][0].append(index)
    for index, record in enumerate(new):
        if index not in taken:
            sides[key(record)][1].append(index)
    for before, after in sides.values():
        if len(before) == len(after) == 1:
            partner[before[0]] = after[0]


def _subject(record: Record) -> Hashable:
    return record.kind, next(iter(record.fields.items()), None)


def _kind(record: Record) -> Hashable:
    return record.kind
