"""Pieces and files of a stored image, read when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from vcsimg.delta.frames import unpack_frame
from vcsimg.delta.units import QUARTER
from vcsimg.errors import DamagedImage, HostileImage
from vcsimg.image.pages import Piece, PieceSource
from vcsimg.image.records import parse_records
from vcsimg.image.region import RegionMap
from vcsimg.image.snapshot import FILE_PART
from vcsimg.image.units import PAGE_SHIFT, PIECE_SHIFT, PIECE_SIZE
from vcsimg.store import chain
from vcsimg.store.layout import (
    DEEP,
    FLAT,
    KEYS,
    PATCH,
    chunk_directory,
    chunk_name,
    file_path,
    is_key,
    part_name,
    piece_number,
    piece_path,
)
from vcsimg.store.objects import BLOB, Entry, Objects, Oid

CHUNK = 2 << 20
_CACHED_CHUNKS = 4


class Trees:
    """Directories below one tree, each read once."""

    def __init__(self, objects: Objects, root: Oid, where: str) -> None:
        self._objects = objects
        self._known: dict[Oid, dict[str, Entry]] = {}
        self._where = where
        self.root = root

    def list(self, oid: Oid) -> dict[str, Entry]:
        """The entries of a directory."""
        found = self._known.get(oid)
        if found is None:
            found = self._known[oid] = self._objects.tree(oid, self._where)
        return found

    def find(self, path: Iterable[str]) -> Entry | None:
        """The entry at a path, or None."""
        entry = Entry(True, self.root)
        for name in path:
            found = self.list(entry.oid).get(name) if entry.is_tree else None
            if found is None:
                return None
            entry = found
        return entry


def find_piece(trees: Trees, base: tuple[str, ...], number: int) -> Entry | None:
    """The directory of a piece, in a process's memory at `base`, or None."""
    return trees.find((*base, *piece_path(number, FLAT))) or trees.find((*base, *piece_path(number, DEEP)))


@dataclass(slots=True)
class Held:
    """A piece in hand, its chain, and the state that this names for it."""

    piece: Piece
    links: list[chain.Link]
    state: int


class StoredPieces(PieceSource):
    """The memory of one process in a capture: a PieceSource.

    `root` is the tree proc/<pid>/memory; None when no page has own content. `where` names capture and process in errors.
    """

    depth = DEEP
    spelled = staticmethod(piece_number)

    def __init__(self, objects: Objects, root: Oid | None, regions: RegionMap, where: str) -> None:
        self._objects = objects
        self._trees = Trees(objects, root, f"{where} memory") if root is not None else None
        self._regions = regions
        self._where = where

    def numbers(self) -> Iterator[int]:
        """Numbers of all pieces, ascending. Raises HostileImage, DamagedImage."""
        if self._trees is None:
            return iter(())
        found = sorted(self._walk((), self._trees.root))
        if any(one == two for one, two in pairwise(found)):
            raise HostileImage(f"{self._where} memory", "a piece stands twice")
        return iter(found)

    def _walk(self, path: tuple[str, ...], oid: Oid) -> Iterator[int]:
        assert self._trees is not None
        for name, entry in self._trees.list(oid).items():
            names = (*path, name)
            if not entry.is_tree:
                raise HostileImage(f"{self._where} memory/{'/'.join(path)}", f"{name!r} does not belong here")
            number = self.spelled(names)
            if number is not None:
                yield number
            elif len(names) < self.depth:
                yield from self._walk(names, entry.oid)
            else:
                raise HostileImage(f"{self._where} memory/{'/'.join(names)}", "no address of a piece")

    def where(self, number: int, page: int | None = None) -> str:
        """A piece, or a page of it, as errors name it: with the region that it belongs to."""
        address = (number << PIECE_SHIFT) + ((page or 0) << PAGE_SHIFT)
        region = self._regions.find(address)
        if region is None and page is None:
            region = next(self._regions.overlapping(address, address + PIECE_SIZE), None)
        named = f" region {region.start:x}-{region.end:x}{' ' + region.name if region.name else ''}" if region else ""
        return f"{self._where}{named} {'page' if page is not None else 'piece'} {address:#x}"

    def links(self, number: int) -> list[chain.Link]:
        """The chain of a piece; empty when it has no own content. Raises DamagedImage, HostileImage."""
        entry = find_piece(self._trees, (), number) if self._trees is not None else None
        if self._trees is None or entry is None:
            return []
        if not entry.is_tree:
            raise HostileImage(self.where(number), "its chain is no directory")
        return chain.links(self._trees.list(entry.oid), self.where(number))

    def piece(self, number: int) -> Piece | None:
        """A piece, every page verified; None when no page of it has own content. Raises DamagedImage, HostileImage."""
        held = self.held(number)
        return held.piece if held is not None else None

    def held(self, number: int) -> Held | None:
        """The same with its chain, along which it can be moved."""
        found = self.links(number)
        if not found:
            return None
        where = self.where(number)
        deltas = chain.read_deltas(self._objects, found, number << PIECE_SHIFT, where)
        state = chain.check_state(deltas, where)
        with self.naming(number):
            return Held(chain.rebuild(deltas, state, where), found, state.digest)

    def pages(self, number: int, first: int, last: int) -> Piece | None:
        """Pages [first, last) of a piece, own (n,) and data (n, 4096), verified, without reading all of it; None when no page of the piece has own
        content. Raises DamagedImage, HostileImage."""
        found = self.links(number)
        if not found:
            return None
        quarters = KEYS[first // QUARTER : (last - 1) // QUARTER + 1]
        kinds = {link.kind for link in found}
        if PATCH in kinds or not kinds.issuperset(quarters):
            # A patch needs what it leads from; and whether a quarter is missing, or has no content, only the whole tells.
            return super().pages(number, first, last)
        needed = [link for link in found if not is_key(link.kind) or link.kind in quarters]
        where = self.where(number)
        deltas = chain.read_deltas(self._objects, needed, number << PIECE_SHIFT, where)
        with self.naming(number):
            return chain.rebuild_pages(deltas, first, last, where)

    @contextmanager
    def naming(self, number: int, first: int = 0) -> Iterator[None]:
        """Errors of pages, counted from page `first` of a piece on, name these."""
        try:
            yield
        except chain.DamagedPage as error:
            raise DamagedImage(self.where(number, first + error.page), "its content is not what was captured") from None


class StoredFiles:
    """Contents of files in a capture: a FileSource. Keeps the last few chunks."""

    def __init__(self, objects: Objects, trees: Trees, where: str) -> None:
        self._objects = objects
        self._trees = trees
        self._where = where
        self._sizes: dict[str, int | None] = {}
        self._chunks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def size(self, sha256: str) -> int | None:
        """Size in bytes, or None when the content is not there. Raises DamagedImage, HostileImage."""
        if sha256 not in self._sizes:
            self._sizes[sha256] = self._read_size(sha256)
        return self._sizes[sha256]

    def _read_size(self, sha256: str) -> int | None:
        entry = self._trees.find((*file_path(sha256), "info"))
        if entry is None:
            return None
        where = f"{self._where} files/{sha256}"
        records = parse_records(self._objects.read(entry.oid, BLOB, where), where)
        if len(records) != 1 or records[0].kind != "file" or records[0]["sha256"] != sha256:
            raise HostileImage(where, "its info is not one of this file")
        size = records[0].int("size")
        if size < 0:
            raise HostileImage(where, f"a size of {size}")
        return size

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), fewer at the end of the file. Raises DamagedImage, HostileImage."""
        size = self.size(sha256)
        end = min(offset + length, size or 0)
        parts = []
        while offset < end:
            index, skip = divmod(offset, CHUNK)
            part = self._chunk(sha256, index, min(CHUNK, (size or 0) - index * CHUNK))[skip : skip + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _chunk(self, sha256: str, index: int, size: int) -> bytes:
        key = (sha256, index)
        found = self._chunks.pop(key, None)
        if found is None:
            found = b"".join(self._blob((*file_path(sha256), *names), length) for names, length in self._blobs(sha256, index, size))
        self._chunks[key] = found
        if len(self._chunks) > _CACHED_CHUNKS:
            self._chunks.popitem(last=False)
        return found

    def _blobs(self, sha256: str, index: int, size: int) -> list[tuple[tuple[str, ...], int]]:
        """Names and sizes of what a chunk is stored as: one blob, or parts in a directory."""
        directory = self._trees.find((*file_path(sha256), chunk_directory(index)))
        if directory is None:
            return [((chunk_name(index),), size)]
        return [
            ((chunk_directory(index), part_name(part)), min(FILE_PART, size - part * FILE_PART))
            for part in range(-(-size // FILE_PART))
        ]

    def names(self, sha256: str) -> set[tuple[str, ...]]:
        """Everything that belongs to the directory of a file, as names below it. Raises DamagedImage, HostileImage."""
        size = self.size(sha256) or 0
        found: set[tuple[str, ...]] = {("info",)}
        for index in range(-(-size // CHUNK)):
            found.update(names for names, _ in self._blobs(sha256, index, min(CHUNK, size - index * CHUNK)))
        return found

    def _blob(self, path: tuple[str, ...], size: int) -> bytes:
        where = f"{self._where} {path[0]}/{'/'.join(path[2:])}"
        entry = self._trees.find(path)
        if entry is None:
            raise DamagedImage(where, "it is missing")
        return unpack_frame(self._objects.read(entry.oid, BLOB, where), size, where)
