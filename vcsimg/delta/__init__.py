"""Bytes ↔ XOR-compressed bytes. Pure: no I/O. Imports errors only. Layout: docs/image-format.md, "A keyframe or delta blob"."""

from vcsimg.delta.blob import Delta, parse
from vcsimg.delta.describe import describe
from vcsimg.delta.encode import StateMismatch, encode, merge
from vcsimg.delta.hashes import PieceState, page_hashes

__all__ = ["Delta", "PieceState", "StateMismatch", "describe", "encode", "merge", "page_hashes", "parse"]
