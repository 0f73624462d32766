"""Contents of files as a capture holds them: in files/ of the commit, or in the memory of a process that maps all of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from vcsimg.errors import AccessError, HostileImage
from vcsimg.image.pages import FileSource, ImageMemory
from vcsimg.image.region import Region, RegionMap
from vcsimg.image.sections.contents import Content
from vcsimg.image.sections.files import File
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process

Read = Callable[[int, int], bytes]
"""read(offset, length): bytes [offset, offset + length), fewer at the end. Raises DamagedImage."""

LARGEST = 1 << 62
_DELETED = " (deleted)"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def contents(process: Process) -> list[Content]:
    """What a process has open at its path, in order. Raises HostileImage."""
    found = select(process.section("contents"), Content)
    seen: set[tuple[str, int]] = set()
    for content in found:
        where = f"process {process.pid} content of {content.path}"
        if not 0 <= content.size < LARGEST or (content.device, content.inode) in seen:
            raise HostileImage(where, f"a size of {content.size}" if not 0 <= content.size < LARGEST else "it stands twice")
        if content.sha256 is not None and not _SHA256.match(content.sha256):
            raise HostileImage(where, f"not a SHA-256: {content.sha256[:80]!r}")
        seen.add((content.device, content.inode))
    return found


def reader(process: Process, content: Content) -> Read | None:
    """How to read a content; None if the image does not hold it. Raises HostileImage, DamagedImage."""
    memory = process.memory
    if not isinstance(memory, ImageMemory):
        return None
    if content.in_memory:
        regions = _writing(process.regions, content)
        if not covers(regions, content.size):
            raise HostileImage(f"process {process.pid} content of {content.path}", "no mapping has it")
        return partial(_read_memory, memory, regions, content.size)
    return _stored(memory.files, content.sha256, content.size, f"process {process.pid} content of {content.path}")


def nameless(process: Process) -> Iterator[tuple[File, Read]]:
    """Open files that no path leads to, and how to read those of which the image holds the content. Raises HostileImage, DamagedImage."""
    memory = process.memory
    if not isinstance(memory, ImageMemory):
        return
    for file in select(process.section("files"), File):
        read = _stored(memory.files, file.content, None, f"process {process.pid} fd {file.fd}")
        if read is not None:
            yield file, read


def covers(regions: list[Region], size: int) -> bool:
    """Whether bytes [0, size) of a file are all mapped; regions ascending by offset."""
    end = 0
    for region in regions:
        if region.offset > end:
            break
        end = max(end, region.offset + region.end - region.start)
    return end >= size


def _stored(files: FileSource, sha256: str | None, size: int | None, where: str) -> Read | None:
    known = files.size(sha256) if sha256 is not None else None
    if known is None or sha256 is None:
        return None
    if size is not None and known != size:
        raise HostileImage(where, f"{known} bytes are stored of a file of {size}")
    return partial(files.read, sha256)


def _writing(regions: RegionMap, content: Content) -> list[Region]:
    """The regions that write to a file, by offset."""
    found = [
        region
        for region in regions
        if region.writes_file and region.inode == content.inode and region.name.removesuffix(_DELETED) == content.path
    ]
    return sorted(found, key=lambda region: region.offset)


def _read_memory(memory: ImageMemory, regions: list[Region], size: int, offset: int, length: int) -> bytes:
    end = min(offset + length, size)
    parts = []
    while offset < end:
        region = next(one for one in regions if one.offset <= offset < one.offset + one.end - one.start)
        address = region.start + offset - region.offset
        try:
            parts.append(memory.read(address, min(end - offset, region.end - address)))
        except AccessError:
            raise HostileImage(f"region {region.start:#x}", "it has no content, and is that of a file") from None
        offset += len(parts[-1])
    return b"".join(parts)
