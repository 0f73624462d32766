"""Changes of memory → blobs of chains. What is remembered between captures is in `Chain`: names and hashes, never contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vcsimg.delta import Delta, PieceState, StateMismatch, encode, merge
from vcsimg.delta.encode import keyframes
from vcsimg.delta.merge import Words, few_words_of
from vcsimg.delta.together import Change, encode_together
from vcsimg.delta.units import QUARTER
from vcsimg.errors import DamagedImage
from vcsimg.image.pages import Bytes2D, Flags, Indexes, PieceChange
from vcsimg.image.region import RegionMap
from vcsimg.image.units import PAGE_SHIFT, PAGE_SIZE, PAGES_PER_PIECE, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import chain as chains
from vcsimg.store.layout import KEYS, PATCH, XOR, blob_name
from vcsimg.store.objects import BLOB, Objects, Oid, object_id
from vcsimg.store.pack import PackEntry, pack_entry
from vcsimg.store.policy import Merge, Rebase, Weighed, plan, rest

_SMALL_DELTA = 2048
_ALL = np.arange(PAGES_PER_PIECE, dtype=np.uint16)


@dataclass
class Chain:
    """One piece of one process, as the capture before left it. `words`: small deltas by their versions, for when they are merged. `calm`: up to
    which version it need not be looked at whether it is to be merged, if its deltas are small."""

    links: list[Weighed] = field(default_factory=list)
    state: PieceState = field(default_factory=PieceState)
    words: dict[int, Words] = field(default_factory=dict)
    calm: int = -1


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob to be written: its name in the piece's directory, its id, and its entry for a pack, which is made here, where several threads
    are at work, and not by the one that writes."""

    name: str
    oid: Oid
    entry: PackEntry


@dataclass(slots=True)
class Encoded:
    """What a change made of a chain. `pages` are those that changed, ascending; none: nothing is to be written.

    `blobs` to add and names to `remove`; `gone`: the piece has no own content any more.
    """

    pages: Indexes
    blobs: list[NewBlob] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    gone: bool = False


def mapped_pages(regions: RegionMap, number: int) -> Flags | None:
    """Which pages of a piece lie in a region: (2048,), or None when all do."""
    start = number << PIECE_SHIFT
    flags = np.zeros(PAGES_PER_PIECE, bool)
    for region in regions.overlapping(start, start + PIECE_SIZE):
        if region.start <= start and region.end >= start + PIECE_SIZE:
            return None
        flags[max(0, region.start - start) >> PAGE_SHIFT : (region.end - start) >> PAGE_SHIFT] = True
    return None if flags.all() else flags


def _counted(delta: Delta) -> tuple[int, int]:
    """Pages that a delta names, and those of them that had no own content before."""
    return len(delta.pages), len(delta.pages) - int(np.count_nonzero(delta.had))


class Encoder:
    """Encodes the changes of one process. Safe to call from several threads for different pieces."""

    def __init__(self, objects: Objects, regions: RegionMap, where: str, *, whole: bool) -> None:
        self._objects = objects
        self._regions = regions
        self._where = where
        self._whole = whole

    def load(self, number: int, links: list[chains.Link]) -> Chain:
        """What is to be remembered of a chain in the repository. Raises DamagedImage, HostileImage."""
        where = self._at(number)
        deltas = [chains.read_delta(self._objects, link, number << PIECE_SHIFT, where, verify=True) for link in links]
        weighed = [
            Weighed(link.version, link.kind, link.oid, len(delta.payload) + 6 * len(delta.pages) + 32, *_counted(delta))
            for link, delta in zip(links, deltas, strict=True)
        ]
        return Chain(weighed, chains.check_state(deltas, where))

    def encode(self, chain: Chain, change: PieceChange, *, maintain: bool, quick: bool = False) -> Encoded:
        """Bring a chain to what a change says. `maintain`: merge or re-base it now if it is due; `quick`: as in codec.pack.

        Raises DamagedImage.
        """
        number = change.number
        pages, new = change.pages, change.new
        old, had = change.old, change.old_own
        own, stray = self._own(chain, change)
        if self._whole or stray is not None:
            pages, new, own, old, had = self._widened(pages, new, own, stray)
        if not len(pages):
            return Encoded(pages)
        if not chain.links:
            return self._begun(chain, number, pages[own], new if own.all() else new[own], quick=quick)
        delta = None
        if old is not None and had is not None:
            try:
                delta = encode(number << PIECE_SHIFT, pages, old, had, new, own, chain.state, quick=quick)
            except StateMismatch:
                old = None
        if old is None or had is None:
            piece = chains.rebuild(self._deltas(chain.links, number), chain.state, self._at(number))
            delta = encode(number << PIECE_SHIFT, pages, piece.data[pages], piece.own[pages], new, own, chain.state, quick=quick)
        return self.appended(chain, number, delta, maintain=maintain) if delta is not None else Encoded(pages[:0])

    def encode_together(self, changes: Sequence[tuple[Chain, PieceChange]]) -> list[Delta | None]:
        """Deltas for changes of few words in known pieces: each is to go to appended() next. None for changes that encode() must look at."""
        plain: list[Change | None] = []
        for chain, change in changes:
            fine = None
            if chain.links and change.old is not None and change.old_own is not None and not self._whole:
                own, stray = self._own(chain, change)
                if stray is None:
                    address = change.number << PIECE_SHIFT
                    fine = Change(address, change.pages, change.old, change.old_own, change.new, own, chain.state)
            plain.append(fine)
        found = iter(encode_together([change for change in plain if change is not None]))
        return [next(found) if change is not None else None for change in plain]

    def _own(self, chain: Chain, change: PieceChange) -> tuple[Flags, Flags | None]:
        """Which pages (n,) of a change have own content, for only what is mapped has any; and which pages of the piece, (2048,), that it does not name
        have own content still and are not mapped any more: None if there are none."""
        mask = mapped_pages(self._regions, change.number)
        if mask is None:
            return change.own, None
        stray = chain.state.own & ~mask
        stray[change.pages] = False
        return change.own & mask[change.pages], stray if stray.any() else None

    def appended(self, chain: Chain, number: int, delta: Delta, *, maintain: bool) -> Encoded:
        """A chain whose state a delta has led on from other content, with that delta. `maintain`: as in encode(). Raises DamagedImage."""
        if chain.state.empty:
            chain.links.clear()
            chain.words.clear()
            return Encoded(delta.pages, gone=True)
        result = Encoded(delta.pages)
        if maintain:
            self._maintain(chain, number, result, delta)
        self._append(chain, result, chain.links[-1].version + 1, delta)
        return result

    def _begun(self, chain: Chain, number: int, pages: Indexes, rows: Bytes2D, *, quick: bool) -> Encoded:
        """A new chain of pages (n,) with own content, rows (n, 4096)."""
        result = Encoded(pages)
        for key in keyframes(number << PIECE_SHIFT, pages, np.ascontiguousarray(rows), chain.state, quick=quick):
            self._append(chain, result, 0, key)
        return result

    def _widened(self, pages: Indexes, new: Bytes2D, own: Flags, stray: Flags | None) -> tuple[Indexes, Bytes2D, Flags, None, None]:
        """The same change, with the pages named too that it does not name and that are gone: all, or the stray ones."""
        named = np.zeros(PAGES_PER_PIECE, bool)
        named[pages] = True
        wanted = _ALL if stray is None or self._whole else np.flatnonzero(named | stray).astype(np.uint16)
        rows = np.zeros((PAGES_PER_PIECE, PAGE_SIZE), np.uint8)
        flags = np.zeros(PAGES_PER_PIECE, bool)
        rows[pages] = new
        flags[pages] = own
        return wanted, rows[wanted], flags[wanted], None, None

    def _maintain(self, chain: Chain, number: int, result: Encoded, delta: Delta) -> None:
        """Merge or re-base the links before the delta about to be appended, if they are due."""
        if chain.links and chain.links[-1].version <= chain.calm and chain.links[-1].size <= _SMALL_DELTA:
            return
        due = plan(chain.links, number)
        chain.calm = chain.links[-1].version + rest(chain.links, number) if due is None and chain.links else -1
        where = self._at(number)
        if isinstance(due, Merge):
            run = chain.links[due.first : due.last]
            if any(link.kind == PATCH for link in run):
                merged = self._merged_contents(chain.links, due, number)
            else:
                kept = [chain.words.get(link.version) for link in run]
                parts = [words or self._delta(link, number) for words, link in zip(kept, run, strict=True)]
                merged = merge(parts, number << PIECE_SHIFT, where)
            for link in run:
                chain.words.pop(link.version, None)
            tail = chain.links[due.last :]
            del chain.links[due.first :]
            result.remove += [blob_name(link.version, link.kind) for link in run]
            if merged is not None:
                self._append(chain, result, run[-1].version, merged)
            chain.links += tail
        elif isinstance(due, Rebase):
            deltas = self._deltas(chain.links, number)
            before = chains.check_state(deltas, where)
            if before.digest != delta.before:
                raise DamagedImage(where, "its chain does not lead to the content that was captured last")
            piece = chains.rebuild(deltas, before, where)
            version = chain.links[-1].version
            result.remove += [blob_name(link.version, link.kind) for link in chain.links]
            chain.links.clear()
            chain.words.clear()
            pages = np.flatnonzero(before.own).astype(np.uint16)
            for key in keyframes(number << PIECE_SHIFT, pages, piece.data[pages], before):
                self._append(chain, result, version, key)

    def _merged_contents(self, links: list[Weighed], due: Merge, number: int) -> Delta | None:
        """A merge by what the run leads from and to, since patches do not compose."""
        where = self._at(number)
        deltas = self._deltas(links[: due.last], number)
        state = chains.check_state(deltas[: due.first], where)
        before = chains.rebuild(deltas[: due.first], state, where)
        after = chains.rebuild(deltas, chains.check_state(deltas, where), where)
        pages = np.unique(np.concatenate([delta.pages for delta in deltas[due.first :]]))
        return encode(
            number << PIECE_SHIFT, pages, before.data[pages], before.own[pages], after.data[pages], after.own[pages], state
        )

    def _append(self, chain: Chain, result: Encoded, version: int, delta: Delta) -> None:
        plain = delta.bytes()
        data = self._objects.seal(plain)
        kind = KEYS[int(delta.pages[0]) // QUARTER] if delta.is_key else PATCH if delta.is_patch else XOR
        if not delta.is_key and (words := few_words_of(delta, plain)) is not None:
            chain.words[version] = words
        blob = NewBlob(blob_name(version, kind), object_id(BLOB, data), pack_entry(BLOB, data, stored=True))
        chain.links.append(Weighed(version, kind, blob.oid, len(data), *_counted(delta)))
        result.blobs.append(blob)

    def _delta(self, link: Weighed, number: int) -> Delta:
        return chains.read_delta(
            self._objects, chains.Link(link.version, link.kind, link.oid), number << PIECE_SHIFT, self._at(number)
        )

    def _deltas(self, links: list[Weighed], number: int) -> list[Delta]:
        return [self._delta(link, number) for link in links]

    def _at(self, number: int) -> str:
        return f"{self._where} piece {number << PIECE_SHIFT:#x}"
