"""The map of one process: read for each capture, taken over when it has changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace

from vcsimg.capture.files import FileTable
from vcsimg.capture.pages import NO_RANGES, Ranges, join, ranges_of
from vcsimg.capture.regions import Kind, Plan
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.snapshot import MappedFile
from vcsimg.kernel import procfs

_WATCHING = ("uw", "sd")
"""VmFlags that say how a region is watched (userfaultfd write-protection, soft-dirty), not what it is."""


class MapReader:
    """`plan`: what is captured of each region, and how; `mapped`: the files of file regions, by start; `eligible`: what may be tracked,
    anonymous and file regions apart (True: file); `all_eligible`: both; `rewritten`: regions of files that have other contents than before the last
    change, so that pages which were like the file are not like it now."""

    def __init__(self, files: FileTable, exclude: Sequence[str]) -> None:
        self._files = files
        self._exclude = exclude
        self._raw = b""
        self._unknown: set[int] = set()
        self._deleted: list[Region] = []
        self.plan = Plan(RegionMap(()))
        self.mapped: dict[int, MappedFile] = {}
        self.eligible: dict[bool, Ranges] = {False: NO_RANGES, True: NO_RANGES}
        self.all_eligible = NO_RANGES
        self.rewritten = NO_RANGES

    def look(self, tid: int) -> bool:
        """While it runs: read the map; whether it has changed. `tid`: any thread of the process that has not ended."""
        if self._take_over(tid, stopped=False):
            return True
        if not self.stale_files(tid):
            return False
        self._plan_for(tid, self.plan.regions)
        return True

    def stale_files(self, tid: int) -> list[MappedFile]:
        """Mapped files that are no longer as they were when the map was taken over."""
        found = {(file.device, file.inode): (file, start) for start, file in self.mapped.items()}
        regions = ((file, self.plan.regions.find(start)) for file, start in found.values())
        return [file for file, region in regions if region is not None and not self._files.is_current(tid, region)]

    def look_again(self, tid: int) -> bool:
        """While it is stopped: whether the map is another one than at the last look."""
        return self._take_over(tid, stopped=True)

    def hold_deleted_files(self, tid: int) -> None:
        """While it is stopped, after look_again(): those that nobody can open when the process has unmapped them. See FileTable.hold()."""
        for region in self._deleted:
            self._files.hold(tid, region)

    def is_current(self, tid: int) -> bool:
        """Whether the map is still the one that was taken over last."""
        raw = procfs.read(tid, "maps")
        return raw == self._raw or self._is_same(procfs.parse_maps(raw))

    def is_new(self, region: Region) -> bool:
        """Whether a region appeared only at the stop: its flags are not known yet."""
        return region.start in self._unknown

    def complete_flags(self, tid: int) -> None:
        """When it runs again: look up the flags of regions that were new when it was stopped, as far as they are still there."""
        if not self._unknown:
            return
        flags = procfs.read_smaps_flags(tid)
        now = {(region.start, region.end, region.perms) for region in procfs.read_maps(tid)}
        self.plan.regions = RegionMap(
            replace(region, flags=_own_flags(flags.get(region.start, ())))
            if region.start in self._unknown and (region.start, region.end, region.perms) in now
            else region
            for region in self.plan.regions
        )
        self._unknown = set()

    def _take_over(self, tid: int, *, stopped: bool) -> bool:
        raw = procfs.read(tid, "maps")
        if raw == self._raw:  # to the letter, as in most captures
            return False
        changed = self._take(tid, procfs.parse_maps(raw), stopped=stopped)
        self._raw = raw
        return changed

    def _is_same(self, regions: Sequence[Region]) -> bool:
        mine = self.plan.regions.regions
        return len(mine) == len(regions) and all(replace(old, flags=()) == new for old, new in zip(mine, regions, strict=True))

    def _take(self, tid: int, regions: Sequence[Region], *, stopped: bool) -> bool:
        """VmFlags cost a walk of all page tables (11 ms per GiB), so they are read only when the map has changed, and of a stopped process
        not at all: what is not known from before is looked up in complete_flags()."""
        if self._is_same(regions):
            return False
        if not stopped:
            regions = _consistent(regions)
        known: Callable[[Region], tuple[str, ...] | None]
        if stopped:
            known = self._known_flags
            if any(known(region) is None and _may_be_device(tid, region) for region in regions):
                stopped = False  # reading device memory can have effects: better a longer pause
        if not stopped:
            flags = procfs.read_smaps_flags(tid)
            known = lambda region: flags.get(region.start, ())  # noqa: E731
        self._unknown = {region.start for region in regions if known(region) is None}
        self._plan_for(
            tid,
            RegionMap(
                replace(region, flags=_assumed(region) if region.start in self._unknown else _own_flags(known(region) or ()))
                for region in regions
            ),
        )
        return True

    def _known_flags(self, region: Region) -> tuple[str, ...] | None:
        """Flags of the part of an old region that a new one is; None if it is none."""
        old = self.plan.regions.find(region.start)
        if old is None or old.end < region.end or (old.perms, old.inode) != (region.perms, region.inode):
            return None
        return old.flags

    def _plan_for(self, tid: int, regions: RegionMap) -> None:
        plan = Plan(regions, self._exclude)
        before = {(file.device, file.inode): file.sha256 for file in self.mapped.values()}
        self.mapped = {}
        for region in plan.of(Kind.FILE):
            file = self._files.lookup(tid, region)
            self.mapped[region.start] = file
            if file.sha256 is None:
                plan.kinds[region.start] = Kind.SHARED  # nothing to refer to: every page is read
        self.rewritten = ranges_of(
            (start, mapped.end)
            for start, file in self.mapped.items()
            if before.get((file.device, file.inode), file.sha256) != file.sha256 and (mapped := regions.find(start)) is not None
        )
        self._deleted = [region for region in plan.of(Kind.FILE) if region.deleted]
        self.plan = plan
        self.eligible = {
            file: join([ranges_of((region.start, region.end) for region in plan.of(kind))])
            for file, kind in ((False, Kind.ANONYMOUS), (True, Kind.FILE))
        }
        self.all_eligible = join(self.eligible.values())


def _own_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(flag for flag in flags if flag not in _WATCHING)


def _assumed(region: Region) -> tuple[str, ...]:
    """Flags until they can be looked up: a shared file region that is not writable now may have been, or be made so."""
    return ("mw",) if region.shared and region.has_file else ()


def _consistent(regions: Sequence[Region]) -> list[Region]:
    """The map of a running process is read in parts, between which it can change: of regions that overlap, the first."""
    kept: list[Region] = []
    for region in regions:
        if not kept or region.start >= kept[-1].end:
            kept.append(region)
    return kept


def _may_be_device(tid: int, region: Region) -> bool:
    """Whether a shared file region may be of something else than a regular file."""
    if not region.shared or not region.has_file:
        return False
    try:
        return not stat.S_ISREG(os.stat(f"/proc/{tid}/root{region.name.removesuffix(' (deleted)')}").st_mode)
    except OSError:
        return not region.deleted  # memfd, SysV and the like: made by the kernel, never a device
