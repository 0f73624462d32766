"""The chain of a piece: reading it, checking it, rebuilding the piece from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vcsimg.delta import Delta, PieceState, page_hashes, parse
from vcsimg.delta.blob import apply_all, parse_all
from vcsimg.delta.hashes import fold, shortened
from vcsimg.delta.merge import follow
from vcsimg.errors import DamagedImage, HostileImage, ImageError
from vcsimg.image.pages import Flags, Piece, any_content
from vcsimg.image.units import PAGE_SHIFT, PIECE_SHIFT
from vcsimg.store.layout import KEY, PATCH, parse_blob_name
from vcsimg.store.objects import BLOB, Entry, Objects, Oid


@dataclass(frozen=True, slots=True)
class Link:
    """One blob of a chain: the version that it leads to, its kind, and its id."""

    version: int
    kind: str
    oid: Oid


def links(entries: Mapping[str, Entry], where: str) -> list[Link]:
    """The links of a piece's directory, keyframe first. Raises HostileImage."""
    found = []
    for name, entry in entries.items():
        parsed = parse_blob_name(name)
        if parsed is None or entry.is_tree:
            raise HostileImage(where, f"{name!r} does not belong to a chain")
        found.append(Link(parsed[0], parsed[1], entry.oid))
    found.sort(key=lambda link: link.version)
    if not found or found[0].kind != KEY or any(link.kind == KEY for link in found[1:]):
        raise HostileImage(where, "a chain is one keyframe and the deltas or patches after it")
    if any(one.version == two.version for one, two in pairwise(found)):
        raise HostileImage(where, "two deltas lead to one version")
    return found


def read_delta(objects: Objects, link: Link, number: int, where: str, *, verify: bool = False) -> Delta:
    """The blob of a link, its header checked against its place. Raises DamagedImage, HostileImage.

    `verify`: compare the blob with its id. Whoever rebuilds the piece need not, since that checks every page.
    """
    delta = parse(objects.read(link.oid, BLOB, where, verify=verify), where)
    _check_place(delta, link, number, where)
    return delta


def read_deltas(objects: Objects, links: Sequence[Link], number: int, where: str) -> list[Delta]:
    """The blobs of several links, as read_delta() gives them."""
    with objects.unverified():
        blobs = [objects.read(link.oid, BLOB, where, verify=False) for link in links]
    deltas = parse_all(blobs, where)
    for delta, link in zip(deltas, links, strict=True):
        _check_place(delta, link, number, where)
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
        _check_place(delta, link, number, where(number))
    return deltas


def _check_place(delta: Delta, link: Link, number: int, where: str) -> None:
    """Compare a blob with the name that it stands under."""
    if delta.address != number << PIECE_SHIFT:
        raise HostileImage(where, f"a blob of the piece at {delta.address:#x}")
    if link.kind == KEY and not delta.is_key:
        raise HostileImage(where, "its keyframe leads from other content")
    if delta.is_patch != (link.kind == PATCH):
        raise HostileImage(where, "a patch is named as one, and nothing else is")


def check_state(deltas: Sequence[Delta], where: str) -> PieceState:
    """The state that a chain leads to, from the headers alone. Raises DamagedImage where they do not follow one another."""
    state = PieceState()
    pages, had, has, hashes = follow(deltas, where)
    if deltas[0].before != state.digest or had.any():
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


def verify(piece: Piece, state: PieceState, named: Flags, where: str) -> None:
    """Compare the content of every page with the state's hash, and every other `named` (512,) page with zeros. Raises DamagedImage.

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
