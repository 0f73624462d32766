"""How the content of each region is captured."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Sequence

from vcsimg.image.region import Region, RegionMap

_FAR = 1 << 63
_MEMORY = ("/memfd:", "/SYSV", "/dev/zero (deleted)")
"""Files in memory, whose times do not tell that another process, or another mapping, has written to them."""


class Kind(enum.Enum):
    """What stands behind the pages of a region."""

    ANONYMOUS = "anonymous"  # private, no file: pages are zeros until written
    SHARED = "shared"  # other mappings or a write() may change it: always read, never tracked
    FILE = "file"  # pages are the file's until written
    NONE = "none"  # cannot be read, or must not be


def kind_of(region: Region, exclude: Sequence[str] = ()) -> tuple[Kind, str]:
    """How a region is captured, and for NONE why not. `exclude` are shell patterns for names of regions.

    Device memory (VmFlags io, pf) is never touched: reading a device register can have effects.
    """
    if region.start >= _FAR:
        return Kind.NONE, "lies in the kernel's half"
    if region.name.startswith("[vvar"):
        return Kind.NONE, "kernel data page"
    if "io" in region.flags or "pf" in region.flags:
        return Kind.NONE, "device memory"
    if any(fnmatch.fnmatchcase(region.name, pattern) for pattern in exclude):
        return Kind.NONE, "excluded"
    if region.name == "[vdso]":
        return Kind.SHARED, ""  # kernel code: its pages appear when they are touched
    if not region.has_file:
        return Kind.SHARED if region.shared else Kind.ANONYMOUS, ""
    if region.shared and (region.writable or "mw" in region.flags or region.name.startswith(_MEMORY)):
        return Kind.SHARED, ""
    return Kind.FILE, ""


class Plan:
    """The kinds of all regions of one map."""

    def __init__(self, regions: RegionMap, exclude: Sequence[str] = ()) -> None:
        self.regions = regions
        self.kinds: dict[int, Kind] = {}
        self.reasons: dict[int, str] = {}
        for region in regions:
            kind, reason = kind_of(region, exclude)
            self.kinds[region.start] = kind
            if kind is Kind.NONE:
                self.reasons[region.start] = reason

    def of(self, *kinds: Kind) -> list[Region]:
        """The regions of these kinds, ascending."""
        return [region for region in self.regions if self.kinds[region.start] in kinds]
