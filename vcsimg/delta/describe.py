"""A blob as text, for git's textconv: what `git log -p` and `git diff` show of it."""

from __future__ import annotations

import numpy as np

from vcsimg.delta.blob import Delta, parse
from vcsimg.delta.units import PAGE

_SEALED = b"VXE\x01"


def describe(blob: bytes, where: str = "blob") -> str:
    """One line a page: its address, then what a delta changes in it, or how much of a keyframe's page is not zero.

    Raises HostileImage, DamagedImage.
    """
    if blob.startswith(_SEALED):
        return f"encrypted, {len(blob)} bytes stored\n"
    delta = parse(blob, where)
    count = len(delta.pages)
    kind = "keyframe" if delta.is_key else "patch" if delta.is_patch else "delta"
    lines = [f"{kind} of the piece at {delta.address:#x}: {count} page{'s' * (count != 1)}, {len(blob)} bytes stored"]
    lines.extend(_rewritten(delta) if delta.is_patch else _pages(delta, delta.rows(where)))
    return "\n".join(lines) + "\n"


def _rewritten(delta: Delta) -> list[str]:
    """A patch alone does not tell which bytes it changes."""
    said = {(True, True): "rewritten", (False, True): "new", (True, False): "gone"}
    flags = zip(delta.had.tolist(), delta.has.tolist(), strict=True)
    return [f"{delta.address + page * PAGE:x} {said[flag]}" for page, flag in zip(delta.pages.tolist(), flags, strict=True)]


def _pages(delta: Delta, rows: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[str]:
    lines = []
    for page, row, had, has in zip(delta.pages.tolist(), rows, delta.had.tolist(), delta.has.tolist(), strict=True):
        start = delta.address + page * PAGE
        places = np.flatnonzero(row)
        what = _extent(start, places)
        if delta.is_key:
            lines.append(f"{start:x} {what or 'zeros'}")
        elif not had:
            lines.append(f"{start:x} new, {what or 'zeros'}")
        elif not has:
            lines.append(f"{start:x} gone")
        else:
            lines.append(f"{start:x} {what}")
    return lines


def _extent(start: int, places: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> str:
    if not len(places):
        return ""
    count = len(places)
    return f"{count} byte{'s' * (count != 1)} from {start + int(places[0]):x} to {start + int(places[-1]):x}"
