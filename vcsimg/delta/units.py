"""Sizes that the blob format fixes, and the array types of this package."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PAGE = 4096
PAGES = 2048
QUARTER = 512
"""Pages of a quarter of a piece: it has a keyframe of its own."""

Rows = npt.NDArray[np.uint8]
"""Page contents: shape (n, PAGE)."""
Flags = npt.NDArray[np.bool_]
"""One flag a page: shape (n,)."""
Indexes = npt.NDArray[np.uint16]
"""Page numbers within a piece, ascending: shape (n,), each 0 … 2047."""
Hashes = npt.NDArray[np.uint64]
"""Page hashes: shape (n,)."""
ShortHashes = npt.NDArray[np.uint32]
"""The low halves of page hashes: shape (n,)."""
