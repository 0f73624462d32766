"""What one capture brings in from one process, and how it becomes changes of pieces.

While the process is stopped, pages that nothing else keeps are secured: changed ones on the heap, whole unknown pieces in the
shadow. Pages that a frozen child keeps are read from it afterwards. `changes()` joins both, piece by piece:

    secured rows ─┐
    spilled piece ├─▶ pages of one piece ─▶ PieceChange ─▶ the shadow holds the new content
    frozen child ─┘                             old content from the shadow, if it knows the piece
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from vcsimg.capture.behind import WriteBehind
from vcsimg.capture.copies import Copies
from vcsimg.capture.pages import (
    NO_RANGES,
    PageNumbers,
    Ranges,
    batches,
    by_piece,
    clip,
    inside,
    page_numbers,
    pieces_of,
    touches,
    within,
)
from vcsimg.capture.shadow import Shadow
from vcsimg.image.pages import Bytes2D, Flags, Indexes, PieceChange, any_content, differ
from vcsimg.image.units import PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.memory import Memory, read_pages

_HELD_MOST = 64 << 20
"""Bytes of changes that are kept until the capture is stored, and go to the shadow only then."""

_TOGETHER = 2048
"""Pages of pieces for which the shadow is read in one step."""

_COPIES_LEAST = 256
_COPIES_MOST = 16384
"""Pages that were secured together, and are kept for the next capture."""

_Item = TypeVar("_Item", bound=np.generic)

Own = Callable[[PageNumbers, Bytes2D], Flags]
"""Tells which of some pages have own content: not zeros, or not what the mapped file has there."""


class _Kept(NamedTuple):
    """Some of the copies that may be kept for the next capture."""

    copies: Copies
    where: slice


class _Content(NamedTuple):
    """What pages (n,) of a piece, ascending, hold now: rows (n, 4096), of which own (n,) are own content. `kept`: the copies that they are of."""

    number: int
    pages: Indexes
    rows: Bytes2D
    own: Flags
    kept: _Kept | None = None

    def without(self, pages: Indexes) -> _Content:
        """That of other pages than these."""
        stays = ~np.isin(self.pages, pages, assume_unique=True)
        return self if stays.all() else _Content(self.number, self.pages[stays], self.rows[stays], self.own[stays])


class Harvest:
    """`complete`: the shadow knows the whole image before, so a piece that it does not know had no content; otherwise such a
    piece may have had any, and the store must look it up. `behind`: what changes() gives goes to the shadow that way at once, since what
    read_later() is told of will not be the same again."""

    def __init__(self, shadow: Shadow, *, complete: bool, behind: WriteBehind | None = None) -> None:
        self._shadow = shadow
        self._complete = complete
        self._behind = behind
        self._updates: dict[int, list[_Content]] = {}
        """By piece; no page is in two parts."""
        self._rows: list[tuple[PageNumbers, Bytes2D]] = []
        self._spilled: set[int] = set()
        self._seen: dict[int, Flags] = {}
        self._later: Ranges = NO_RANGES
        self._later_from: Memory | None = None
        self._owed: list[tuple[int, Indexes]] = []
        self._unwritten: list[PieceChange] = []
        self._copies: list[Copies] = []
        self._held = 0
        self.bytes_read = 0

    def secure(self, memory: Memory, numbers: PageNumbers) -> None:
        """Read pages now, and keep them on the heap. For few pages: those known to have been written."""
        rows, readable = read_pages(memory, numbers, self._shadow.room)
        self.bytes_read += rows.nbytes
        if not readable.all():
            numbers, rows = numbers[readable], rows[readable]
        if len(numbers):
            self._rows.append((numbers, rows))

    def secure_all(self, memory: Memory, ranges: Ranges, *, file: bool = False) -> None:
        """Read everything in the ranges now. What the shadow knows is compared at once and only differences stay on the heap;
        pieces that it does not know go to the shadow. `file`: pages of file regions that are no longer the file's, own even when
        zeros."""
        for numbers in batches(ranges):
            # What was copied of them before is out of date, also where the page is now as the shadow has it.
            self._drop(numbers)
            for number, where, pages in by_piece(numbers):
                rows, readable = read_pages(memory, numbers[where], self._shadow.room)
                self.bytes_read += rows.nbytes
                if not readable.all():
                    pages, rows = pages[readable], rows[readable]
                self._seen.setdefault(number, np.zeros(PAGES_PER_PIECE, bool))[pages] = True
                if number in self._shadow and number not in self._spilled:
                    changed = differ(rows, self._shadow.read(number, pages))
                    if file:
                        changed |= ~self._shadow.own(number)[pages]
                    if changed.any():
                        piece = numbers[where][readable][changed]
                        self._rows.append((piece, rows[changed]))
                else:
                    self._spilled.add(number)
                    self._shadow.write(number, pages, rows, np.ones(len(pages), bool) if file else any_content(rows))

    def keep_only(self, ranges: Ranges) -> None:
        """Drop secured rows of pages that lie outside of the ranges: what was mapped there is no longer."""
        self._filter(lambda numbers: inside(numbers, ranges))

    def _drop(self, numbers: PageNumbers) -> None:
        self._filter(lambda secured: ~np.isin(secured, numbers, assume_unique=True))

    def _filter(self, wanted: Callable[[PageNumbers], Flags]) -> None:
        kept = []
        for numbers, rows in self._rows:
            flags = wanted(numbers)
            if flags.all():
                kept.append((numbers, rows))
            elif flags.any():
                kept.append((numbers[flags], rows[flags]))
        self._rows = kept

    def secured(self, ranges: Ranges) -> PageNumbers:
        """Numbers of the pages in the ranges that were secured."""
        return within(np.concatenate([np.zeros(0, np.int64), *(numbers for numbers, _ in self._rows)]), ranges)

    def read_later(self, memory: Memory, ranges: Ranges) -> None:
        """Leave ranges to be read in changes(), from the memory of a process that keeps them, a frozen child, or (`behind`) as they are then."""
        self._later = ranges
        self._later_from = memory

    def changes(self, own: Own, vanished: Ranges, mapped: Ranges, base: Iterable[int] = ()) -> Iterator[PieceChange]:
        """All changes, ascending by piece. To be read to its end, once.

        `vanished`: ranges in which pages that had own content and are not named otherwise have none now: unmapped, or compared.
        `mapped`: all regions; a piece outside of all is forgotten and not named. `base`: pieces of the image before, where the
        shadow is not complete. `own` is given here, late: it may need files that are looked up when the process runs again.
        """
        self._group(own)
        later = self._later_by_piece(own)
        pending = next(later, None)
        known = np.fromiter(self._shadow.numbers(), np.int64)
        mapped_ones = touches(known, mapped)
        for number in known[~mapped_ones].tolist():
            self._shadow.forget(number)
        vanishing = {
            number for number in known[mapped_ones & touches(known, vanished)].tolist() if len(self._gone(number, vanished))
        }
        joined = np.fromiter((number for number in base if number not in self._shadow), np.int64)
        numbers = {*self._updates, *self._spilled, *vanishing, *joined[touches(joined, mapped)].tolist()}
        plain: list[_Content] = []
        plain_pages = 0
        for number in sorted(numbers.union(pieces_of(self._later).tolist())):
            parts = self._updates.pop(number, [])
            postponed = False
            if pending is not None and pending.number == number:
                postponed = self._behind is None and number not in self._shadow and not parts
                # It wins over what was copied before the stop.
                parts = [*(part.without(pending.pages) for part in parts), pending]
                pending = next(later, None)
            if parts and number in self._shadow and number not in self._spilled and number not in vanishing:
                plain += parts
                plain_pages += sum(len(part.pages) for part in parts)
                if plain_pages >= _TOGETHER:
                    yield from self._plain(plain)
                    plain_pages = 0
                continue
            yield from self._plain(plain)
            plain_pages = 0
            change = self._change(number, parts, vanished if number in vanishing else NO_RANGES)
            if change is not None:
                yield change
                if postponed:
                    self._owed.append((number, change.pages[change.own]))
                else:
                    self._keep(change)
        yield from self._plain(plain)

    def _plain(self, parts: list[_Content]) -> Iterator[PieceChange]:
        """Changes of pieces that the shadow knows and that have only new content, each page once; what it knows of them is read in one step.
        Empties the list."""
        if parts:
            changed = [(part, change) for part, change in zip(parts, self._differences(parts), strict=True) if change is not None]
            for _, found in itertools.groupby(changed, lambda pair: pair[0].number):
                pairs = list(found)
                yield _joined([change for _, change in pairs])
                if rest := [change for part, change in pairs if part.kept is None]:
                    self._keep(_joined(rest))
            parts.clear()

    def _differences(self, parts: list[_Content]) -> list[PieceChange | None]:
        """The changes from what the shadow holds of pieces that it knows; None where nothing has changed."""
        changes: list[PieceChange | None] = []
        for part in parts:
            _clear(part)
        found = self._shadow.differences([(part.number, part.pages, part.rows, part.own) for part in parts])
        for (number, pages, rows, own, kept), (changed, old) in zip(parts, found, strict=True):
            if kept is not None:
                kept.copies.update(kept.where, changed)
            if len(old):
                had = self._shadow.own(number)[pages]
                new = self._shadow.room.chosen(rows, changed)
                changes.append(PieceChange(number, pages[changed], new, own[changed], old, had[changed]))
            else:
                changes.append(None)
        return changes

    def _keep(self, change: PieceChange) -> None:
        """See to it that the shadow will hold what has changed."""
        if self._behind is not None:
            self._behind.write(change)
        elif self._held + change.new.nbytes <= _HELD_MOST:
            self._held += change.new.nbytes
            self._unwritten.append(PieceChange(change.number, change.pages, change.new, change.own))
        else:
            self._write(change)

    def _write(self, change: PieceChange) -> None:
        self._shadow.write(change.number, change.pages, change.new, change.own)

    def settle(self) -> None:
        """After changes(): write to the shadow what it does not have yet: changes that are in hand, and, of pieces that it did not know, what
        was read later. Nobody waits for that: the capture is stored already."""
        self._shadow.write_all([(change.number, change.pages, change.new, change.own) for change in self._unwritten])
        self._unwritten.clear()
        self._shadow.keep(self._copies)
        if self._shadow.room.is_seldom_used:
            self._shadow.keep(())  # megabytes, for what may be an hour
        self._copies.clear()
        for number, pages in self._owed:
            assert self._later_from is not None
            rows, readable = read_pages(self._later_from, pages + np.int64(number * PAGES_PER_PIECE), self._shadow.room)
            if not readable.all():
                raise OSError(errno.EIO, "the frozen child has ended")
            self._shadow.write(number, pages, rows, readable)
        self._owed.clear()

    def _group(self, own: Own) -> None:
        _replace(self._rows)
        left = _COPIES_MOST if not len(self._later) else 0
        for numbers, rows in sorted(self._rows, key=lambda batch: -len(batch[0])):
            flags = own(numbers, rows)
            copies = None
            if _COPIES_LEAST <= len(numbers) <= left:
                left -= len(numbers)
                copies = Copies(numbers, rows, flags)
                self._copies.append(copies)
            for number, where, pages in by_piece(numbers):
                kept = _Kept(copies, where) if copies is not None else None
                self._updates.setdefault(number, []).append(_Content(number, pages, rows[where], flags[where], kept))
        self._rows.clear()

    def _later_by_piece(self, own: Own) -> Iterator[_Content]:
        for numbers in batches(self._later):
            for number, where, pages in by_piece(numbers):
                assert self._later_from is not None
                rows, readable = read_pages(self._later_from, numbers[where], self._shadow.room)
                self.bytes_read += rows.nbytes
                if not readable.all():
                    pages, rows = pages[readable], rows[readable]
                yield _Content(number, pages, rows, own(numbers[where][readable], rows))

    def _change(self, number: int, parts: list[_Content], vanished: Ranges) -> PieceChange | None:
        shadow = self._shadow
        known = number in shadow and number not in self._spilled
        new = np.zeros((0, PAGE_SIZE), np.uint8)
        pages: Indexes = np.zeros(0, np.uint16)
        own = np.zeros(0, bool)
        if parts:
            pages, new, own = _merged(parts)
        if number in self._spilled:
            # Content that was written to the shadow while the process was stopped; it is the new one.
            spilled = np.flatnonzero(shadow.own(number)).astype(np.uint16)
            fresh = spilled[~np.isin(spilled, pages)]
            rows = shadow.read(number, fresh)
            pages, new, own = _sorted(
                np.concatenate((pages, fresh)), np.concatenate((new, rows)), np.concatenate((own, np.ones(len(fresh), bool)))
            )
            shadow.forget(number)
        if known and len(vanished):
            gone = np.setdiff1d(self._gone(number, vanished), pages)
        elif known or self._complete:
            gone = np.zeros(0, np.uint16)
        else:
            gone = np.setdiff1d(np.arange(PAGES_PER_PIECE, dtype=np.uint16), pages)
        if len(gone):
            pages, new, own = _sorted(
                np.concatenate((pages, gone)),
                np.concatenate((new, np.zeros((len(gone), PAGE_SIZE), np.uint8))),
                np.concatenate((own, np.zeros(len(gone), bool))),
            )
        content = _Content(number, pages, new, own)
        if known:
            return self._differences([content])[0]
        if self._complete:
            return _from_nothing(content)
        _clear(content)
        return PieceChange(number, pages, new, own)

    def _gone(self, number: int, vanished: Ranges) -> Indexes:
        """Pages of a known piece that had own content, lie in vanished ranges, and were not found unchanged: those among them that are not named have
        none any more."""
        base = number << PIECE_SHIFT
        inside = page_numbers(clip(vanished, base, base + PIECE_SIZE)) & (PAGES_PER_PIECE - 1)
        flags = np.zeros(PAGES_PER_PIECE, bool)
        flags[inside] = True
        flags &= self._shadow.own(number)
        if number in self._seen:
            flags &= ~self._seen[number]
        return np.flatnonzero(flags).astype(np.uint16)


def _clear(content: _Content) -> None:
    """Make zeros of what is no own content."""
    if not content.own.all():
        content.rows[~content.own] = 0


def _from_nothing(content: _Content) -> PieceChange | None:
    """The change where there was no content."""
    number, pages, new, own, _ = content
    if not own.all():
        pages, new, own = pages[own], new[own], own[own]
    # Zeros that nobody looks at take neither time nor memory: calloc(3).
    return PieceChange(number, pages, new, own, np.zeros(new.shape, np.uint8), np.zeros(len(pages), bool)) if len(pages) else None


def _joined(changes: list[PieceChange]) -> PieceChange:
    """One change of those of a known piece, no two of which have the same page."""
    if len(changes) == 1:
        return changes[0]
    pages = np.concatenate([change.pages for change in changes])
    places = np.empty(len(pages), np.intp)
    places[np.argsort(pages)] = np.arange(len(pages))
    parts = np.split(places, np.cumsum([len(change.pages) for change in changes])[:-1])

    def merged(arrays: Iterable[npt.NDArray[_Item]]) -> npt.NDArray[_Item]:
        """By one copy, which is most of what this takes."""
        arrays = list(arrays)
        result = np.empty((len(pages), *arrays[0].shape[1:]), arrays[0].dtype)
        for where, array in zip(parts, arrays, strict=True):
            result[where] = array
        return result

    return PieceChange(
        changes[0].number,
        merged(change.pages for change in changes),
        merged(change.new for change in changes),
        merged(change.own for change in changes),
        merged(cast(Bytes2D, change.old) for change in changes),
        merged(cast(Flags, change.old_own) for change in changes),
    )


def _replace(batches: list[tuple[PageNumbers, Bytes2D]]) -> None:
    """Put rows of later batches, each ascending, where an earlier one has the same pages: each page is then there once. They are few there: each
    round of copying finds less."""
    for at in range(1, len(batches)):
        numbers, rows = batches[at]
        for first, kept in batches[:at]:
            if not len(first):
                continue
            places = np.minimum(np.searchsorted(first, numbers), len(first) - 1)
            same = first[places] == numbers
            if same.all():
                kept[places] = rows
            elif same.any():
                kept[places[same]] = rows[same]
            numbers, rows = numbers[~same], rows[~same]
        batches[at] = numbers, rows


def _merged(parts: list[_Content]) -> tuple[Indexes, Bytes2D, Flags]:
    """All of them, pages ascending."""
    if len(parts) == 1:
        return parts[0].pages, parts[0].rows, parts[0].own
    return _sorted(
        np.concatenate([part.pages for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.own for part in parts]),
    )


def _sorted(pages: Indexes, rows: Bytes2D, own: Flags) -> tuple[Indexes, Bytes2D, Flags]:
    order = np.argsort(pages, kind="stable")
    return pages[order], rows[order], own[order]
