"""Regions (the kernel's VMAs) and the map that lists them. Syntax: docs/image-format.md, "The map"."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vcsimg.errors import HostileImage
from vcsimg.image.records import quote, unquote
from vcsimg.image.units import PAGE_SIZE, Range

ADDRESS_LIMIT = 1 << 64
_CUT_FACTOR = 0x9E3779B97F4A7C15
_CUT_BELOW = (1 << 64) // 128
_LINE = re.compile(
    r"([0-9a-f]{12,16})-([0-9a-f]{12,16}) ([r-][w-][x-][ps]) ([0-9a-f]{8,16}) ([0-9a-f]{2,}:[0-9a-f]{2,}) ([0-9]{1,20})"
    r" (-|[a-z0-9?]{2}(?:,[a-z0-9?]{2})*)(?: (?:\"((?:[^\"\\\n]|\\.)*)\"|([^\" ]+)))?\Z"
)


@dataclass(frozen=True, slots=True)
class Region:
    """One VMA: [start, end), page-aligned.

    `perms` as in /proc/PID/maps (`rw-p`), `device` as `major:minor` in hexadecimal, `name` empty for an unnamed one,
    `flags` the two-letter VmFlags of /proc/PID/smaps in the kernel's order.
    """

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    name: str
    flags: tuple[str, ...] = ()

    @property
    def range(self) -> Range:
        return Range(self.start, self.end)

    @property
    def shared(self) -> bool:
        return self.perms[3] == "s"

    @property
    def writable(self) -> bool:
        return self.perms[1] == "w"

    @property
    def has_file(self) -> bool:
        """Mapped from an inode. True of memfd and SysV shared memory too: those live on an internal tmpfs."""
        return self.inode != 0

    @property
    def writes_file(self) -> bool:
        """What is written to it goes to its file, or may once its protection is changed: all of its pages that are not zeros have own
        content, so nothing of it is looked up in the file."""
        return self.has_file and self.shared and (self.writable or "mw" in self.flags)

    @property
    def deleted(self) -> bool:
        return self.has_file and self.name.endswith(" (deleted)")

    @property
    def special(self) -> bool:
        """Made by the kernel and read only by the process itself: vdso, vvar, vsyscall."""
        return self.name in ("[vdso]", "[vsyscall]") or self.name.startswith("[vvar")

    def line(self) -> str:
        flags = ",".join(self.flags) or "-"
        name = f" {quote(self.name)}" if self.name else ""
        return f"{self.start:012x}-{self.end:012x} {self.perms} {self.offset:08x} {self.device} {self.inode} {flags}{name}"


def backing_of(region: Region, backing: Mapping[tuple[str, int], str]) -> str | None:
    """sha256 of the file content behind the pages of a region that have no own content, from those known by (device, inode); None if there
    is none, or it is not known. The same file may be mapped once to be read and once to be written: only the former has one."""
    return backing.get((region.device, region.inode)) if region.has_file and not region.writes_file else None


class RegionMap:
    """All regions of a process, ascending, not overlapping. Immutable."""

    def __init__(self, regions: Iterable[Region], where: str = "map") -> None:
        self.regions = tuple(regions)
        self._starts = [region.start for region in self.regions]
        end = 0
        for region in self.regions:
            if region.start < end or region.end <= region.start or region.end > ADDRESS_LIMIT:
                raise HostileImage(where, f"regions overlap or are not in order at {region.start:#x}")
            if region.start % PAGE_SIZE or region.end % PAGE_SIZE:
                raise HostileImage(where, f"region {region.start:#x}-{region.end:#x} is not page-aligned")
            end = region.end

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegionMap) and self.regions == other.regions

    def __hash__(self) -> int:
        return hash(self.regions)

    def find(self, address: int) -> Region | None:
        """The region that holds an address, or None."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.regions[index].end:
            return self.regions[index]
        return None

    def overlapping(self, start: int, end: int) -> Iterator[Region]:
        """Regions that have an address in [start, end), ascending."""
        index = max(0, bisect_right(self._starts, start) - 1)
        for region in self.regions[index:]:
            if region.start >= end:
                return
            if region.end > start:
                yield region

    def named(self, name: str) -> Iterator[Region]:
        return (region for region in self.regions if region.name == name)


def format_map(regions: Iterable[Region]) -> dict[str, bytes]:
    """The files of the map, by name."""
    files: dict[str, list[str]] = {}
    lines: list[str] = []
    files["000000000000"] = lines
    for region in regions:
        if (region.start >> 12) * _CUT_FACTOR % (1 << 64) < _CUT_BELOW and region.start:
            lines = files.setdefault(f"{region.start:012x}", [])
        lines.append(region.line() + "\n")
    return {name: "".join(text).encode("utf-8", "surrogateescape") for name, text in files.items() if text}


def parse_map(files: Mapping[str, bytes], where: str) -> RegionMap:
    """The map from its files, whatever their order. Raises HostileImage."""
    regions = []
    for name in sorted(files, key=lambda name: (len(name), name)):
        try:
            text = files[name].decode("utf-8")
        except UnicodeDecodeError as error:
            raise HostileImage(f"{where}/{name}", f"not UTF-8: {error}") from None
        for number, line in enumerate(text.splitlines(), 1):
            regions.append(_parse_line(line, f"{where}/{name}:{number}"))
    return RegionMap(regions, where)


def _parse_line(line: str, where: str) -> Region:
    found = _LINE.match(line)
    if found is None:
        raise HostileImage(where, f"not a region: {line[:120]!r}")
    try:
        name = unquote(found[8]) if found[8] is not None else found[9] or ""
    except ValueError as error:
        raise HostileImage(where, str(error)) from None
    return Region(
        start=int(found[1], 16),
        end=int(found[2], 16),
        perms=found[3],
        offset=int(found[4], 16),
        device=found[5],
        inode=int(found[6]),
        name=name,
        flags=() if found[7] == "-" else tuple(found[7].split(",")),
    )
