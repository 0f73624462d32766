"""Bytes ↔ XOR-compressed bytes. Pure: no I/O. Imports errors only. Layout: docs/image-format.md, "A keyframe or delta blob"."""

from vcsimg.delta.blob import Delta, parse
from vcsimg.delta.describe import describe
from vcsimg.delta.encode import StateMismatch, encode
from vcsimg.delta.hashes import PieceState, page_hashes
from vcsimg.delta.merge import merge

__all__ = ["Delta", "PieceState", "StateMismatch", "describe", "encode", "merge", "page_hashes", "parse"]
