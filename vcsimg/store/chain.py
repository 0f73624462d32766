"""The chain of a piece: reading it, checking it, rebuilding the piece from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vcsimg.delta import Delta, PieceState, page_hashes, parse
from vcsimg.delta.blob import apply_all, parse_all
from vcsimg.delta.hashes import fold, shortened
from vcsimg.delta.merge import follow
from vcsimg.delta.units import QUARTER
from vcsimg.errors import DamagedImage, HostileImage, ImageError
from vcsimg.image.pages import Flags, Piece, any_content
from vcsimg.image.units import PAGE_SHIFT, PIECE_SHIFT
from vcsimg.store.layout import KEYS, PATCH, is_key, keyframes, parse_blob_name
from vcsimg.store.objects import BLOB, Entry, Objects, Oid


@dataclass(frozen=True, slots=True)
class Link:
    """One blob of a chain: the version that it leads to, its kind, and its id."""

    version: int
    kind: str
    oid: Oid


def links(entries: Mapping[str, Entry], where: str, kinds: Collection[str] = KEYS) -> list[Link]:
    """The links of a piece's directory, keyframes first; `kinds` that these can have. Raises HostileImage."""
    found = []
    for name, entry in entries.items():
        parsed = parse_blob_name(name)
        if parsed is None or entry.is_tree:
            raise HostileImage(where, f"{name!r} does not belong to a chain")
        found.append(Link(parsed[0], parsed[1], entry.oid))
    found.sort(key=lambda link: (link.version, link.kind))
    keys = keyframes(link.kind for link in found)
    odd = any(link.version != found[0].version or link.kind not in kinds for link in found[:keys])
    if not keys or odd or any(is_key(link.kind) for link in found[keys:]):
        raise HostileImage(where, "a chain is the keyframes of a piece and the deltas or patches after them")
    if any(one.version == two.version for one, two in pairwise(found[keys - 1 :])):
        raise HostileImage(where, "two deltas lead to one version")
    return found


def read_delta(objects: Objects, link: Link, address: int, where: str, *, verify: bool = False) -> Delta:
    """The blob of a link of the piece at an address, its header checked against its place. Raises DamagedImage, HostileImage.

    `verify`: compare the blob with its id. Whoever rebuilds the piece need not, since that checks every page.
    """
    delta = parse(objects.read(link.oid, BLOB, where, verify=verify), where)
    _check_place(delta, link, address, where)
    return delta


def read_deltas(objects: Objects, links: Sequence[Link], address: int, where: str) -> list[Delta]:
    """The blobs of several links, as read_delta() gives them."""
    with objects.unverified():
        blobs = [objects.read(link.oid, BLOB, where, verify=False) for link in links]
    deltas = parse_all(blobs, where)
    for delta, link in zip(deltas, links, strict=True):
        _check_place(delta, link, address, where)
    return deltas


def read_newest(objects: Objects, links: Sequence[tuple[int, Link]], where: Callable[[int], str]) -> list[Delta]:
    """One blob each of several pieces, by number, as read_delta() gives them. `where` names a piece in errors."""
    with objects.unverified():
        blobs = [objects.read(link.oid, BLOB, where(number), verify=False) for number, link in links]
    try:
        deltas = parse_all(blobs, "")
    except ImageError:
        # One of them is damaged: which?
        deltas = [parse(blob, where(number)) for blob, (number, _) in zip(blobs, links, strict=True)]
    for delta, (number, link) in zip(deltas, links, strict=True):
        _check_place(delta, link, number << PIECE_SHIFT, where(number))
    return deltas


def _check_place(delta: Delta, link: Link, address: int, where: str) -> None:
    """Compare a blob with the name that it stands under, in the chain of the piece at an address."""
    if delta.address != address:
        raise HostileImage(where, f"a blob of the piece at {delta.address:#x}")
    if is_key(link.kind) != delta.is_key:
        raise HostileImage(where, "a keyframe is named as one, and nothing else is")
    if link.kind in KEYS and any(int(page) // QUARTER != KEYS.index(link.kind) for page in delta.pages[[0, -1]]):
        raise HostileImage(where, "its keyframe is of another quarter")
    if delta.is_patch != (link.kind == PATCH):
        raise HostileImage(where, "a patch is named as one, and nothing else is")


def check_state(deltas: Sequence[Delta], where: str) -> PieceState:
    """The state that a chain leads to, from the headers alone. Raises DamagedImage where they do not follow one another."""
    keys = [delta for delta in deltas if delta.is_key]
    state = PieceState()
    pages, had, has, hashes = follow(deltas, where, keys=len(keys))
    if had.any() or len({key.after for key in keys} | {delta.before for delta in deltas[len(keys) :][:1]}) != 1:
        raise DamagedImage(where, "its deltas do not follow one another")
    state.update(pages, has, hashes[has], deltas[-1].after)
    if state.empty:
        raise HostileImage(where, "a chain that leads to an empty piece")
    return state


def rebuild(deltas: Sequence[Delta], state: PieceState, where: str) -> Piece:
    """The piece that a chain leads to, every page verified. `state` is what `check_state` gave. Raises DamagedImage."""
    piece = Piece.empty()
    named = np.zeros(len(piece.own), bool)
    apply_all(deltas, piece.data, where)
    named[np.concatenate([delta.pages for delta in deltas])] = True
    verify(piece, state, named, where)
    piece.own[:] = state.own
    return piece


def rebuild_pages(deltas: Sequence[Delta], first: int, last: int, where: str) -> Piece:
    """Pages [first, last) of the piece that a chain leads to, verified: own (n,), data (n, 4096). Of the keyframes only those that these pages lie
    in are needed. Raises DamagedImage."""
    pages, _, has, hashes = follow(deltas, where, keys=sum(delta.is_key for delta in deltas))
    piece = Piece.empty()
    apply_all(deltas, piece.data, where)
    own = has & (pages >= first) & (pages < last)
    wanted = pages[own]
    wrong = wanted[shortened(page_hashes(piece.data[wanted], wanted)) != hashes[own]]
    if len(wrong):
        raise DamagedPage(where, int(wrong[0]))
    piece.own[wanted] = True
    piece.data[first:last][~piece.own[first:last]] = 0
    return Piece(piece.own[first:last], piece.data[first:last])


def verify(piece: Piece, state: PieceState, named: Flags, where: str) -> None:
    """Compare the content of every page with the state's hash, and every other `named` (2048,) page with zeros. Raises DamagedImage.

    The rest was never written to: to look at it would cost more than all else, where few pages have content.
    """
    pages = np.flatnonzero(state.own).astype(np.uint16)
    full = len(pages) == len(state.own)
    hashes = page_hashes(piece.data if full else piece.data[pages], pages)
    wrong = pages[shortened(hashes) != state.hashes[pages]]
    others = np.flatnonzero(named & ~state.own)
    if not len(wrong) and len(others):
        wrong = others[any_content(piece.data[others])].astype(np.uint16)
    if len(wrong):
        raise DamagedPage(where, int(wrong[0]))
    if fold(hashes) != state.digest:
        raise DamagedImage(where, "its pages are not those that its state names")


class DamagedPage(DamagedImage):
    """A page's content is not what its hash says. `page` is its number in the piece."""

    def __init__(self, where: str, page: int) -> None:
        super().__init__(where, f"page {page << PAGE_SHIFT:#x} of the piece is not what was captured")
        self.page = page
