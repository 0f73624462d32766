"""A process of an image as an ELF core file, as the kernel's fs/binfmt_elf.c would write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from vcsimg.export import elf
from vcsimg.export.extents import LONG_ZEROS, Content, Extent, Kind
from vcsimg.export.notes import notes
from vcsimg.export.sink import Sink, new_file
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.image.units import PAGE_SIZE

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total."""

_MIN_WINDOW = LONG_ZEROS
_MAX_WINDOWS = 1024
"""Long zeros are not spelled out: about this many segments at most, all showing the same hole at the end of the file. File
systems and tools that copy files have limits, and a sanitized program has 20 TiB of zeros."""


def write_core(snapshot: Snapshot, process: Process, stream: BinaryIO, *, progress: Progress | None = None) -> None:
    """Write one process as an ELF core to a binary stream, which need not be seekable.

    Every region has its segments, in order; what the image has no content for has segments without file bytes, so that
    debuggers look for it in the program's own files. If `stream` is a file written at its end, zeros become holes. Memory in
    use stays at a few MiB. Raises AccessError if the process has no memory, DamagedImage or HostileImage if the image cannot be
    used; errors of the stream are the caller's.
    """
    with Content(process) as content:
        extents = _cut_zeros([extent for region in process.regions for extent in content.extents(region)])
        note_bytes = notes(snapshot, process)
        headers, total = _layout(extents, len(note_bytes))
        sink = Sink(stream)
        sink.data(elf.pack_headers(headers))
        sink.data(note_bytes)
        sink.align(PAGE_SIZE)
        for extent in extents:
            if extent.kind is Kind.DATA:
                for _ in sink.copy(content.chunks(extent)):
                    if progress is not None:
                        progress(sink.written, total)
        sink.zeros(total - sink.written)
        sink.finish()


def save_core(snapshot: Snapshot, process: Process, path: Path, *, progress: Progress | None = None) -> None:
    """Write one process as an ELF core to a file, mode 0600, that appears when it is whole. Raises ExportError too."""
    with new_file(path) as stream:
        write_core(snapshot, process, stream, progress=progress)


def core_name(process: Process) -> str:
    """The default name of a process's core: COMM.PID.core, with only letters that are safe in a file name."""
    name = "".join(char if char.isalnum() or char in "._+-" else "_" for char in process.name).lstrip(".") or "process"
    return f"{name}.{process.pid}.core"


def _layout(extents: Sequence[Extent], notes_size: int) -> tuple[list[elf.ProgramHeader], int]:
    """The program headers, and the size of the whole file: notes, data in order of address, the hole that all zeros share."""
    start = elf.headers_size(len(extents) + 1)
    headers = [elf.ProgramHeader(elf.PT_NOTE, 0, start, 0, notes_size, 0, 4)]
    offset = _page_up(start + notes_size)
    hole = offset + sum(len(extent) for extent in extents if extent.kind is Kind.DATA)
    for extent in extents:
        filesz = 0 if extent.kind is Kind.ABSENT else len(extent)
        at = hole if extent.kind is Kind.ZEROS else offset
        headers.append(elf.ProgramHeader(elf.PT_LOAD, _flags(extent.region), at, extent.start, filesz, len(extent), PAGE_SIZE))
        if extent.kind is Kind.DATA:
            offset += filesz
    return headers, hole + max((len(extent) for extent in extents if extent.kind is Kind.ZEROS), default=0)


def _cut_zeros(extents: list[Extent]) -> list[Extent]:
    """The same extents, those of zeros cut to windows of equal size."""
    total = sum(len(extent) for extent in extents if extent.kind is Kind.ZEROS)
    window = max(_MIN_WINDOW, _page_up(total // _MAX_WINDOWS))
    out = []
    for extent in extents:
        step = window if extent.kind is Kind.ZEROS else len(extent)
        for start in range(extent.start, extent.end, step):
            out.append(Extent(extent.region, start, min(extent.end, start + step), extent.kind))
    return out


def _flags(region: Region) -> int:
    return sum(flag for flag, letter in ((elf.PF_R, "r"), (elf.PF_W, "w"), (elf.PF_X, "x")) if letter in region.perms)


def _page_up(value: int) -> int:
    return (value + PAGE_SIZE - 1) & -PAGE_SIZE
