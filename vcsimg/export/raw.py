"""An image as plain files: memory by region, texts, and the files that were mapped.

    DIRECTORY/
    ├── PID/map                      one region a line, as in an image
    ├── PID/extents                  START-END and data, zeros or absent: what the image has of each region
    ├── PID/memory/START-END.bin     one file for each extent of data (mostly a region), pages of zeros as holes
    ├── PID/threads                  registers and other facts of each thread, one record a line
    ├── PID/state/SECTION            every other section of the image (status, files, …), one record a line
    └── files/                       the mapped files, below it by their paths, and by build id in .build-id/

`files/` serves gdb as a sysroot, which is how a core is opened when the program was rebuilt or deleted since:
`gdb -ex 'set sysroot DIRECTORY/files' -ex 'set debug-file-directory DIRECTORY/files' DIRECTORY/files/PATH CORE`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vcsimg.export.core import Progress
from vcsimg.export.extents import Content, Kind
from vcsimg.export.filecontent import file_content
from vcsimg.export.linkmap import loaded_libraries
from vcsimg.export.notes import auxiliary_vector
from vcsimg.export.sink import Sink, below, create, make_directory, new_directory
from vcsimg.image.records import Record, format_records
from vcsimg.image.snapshot import GENERAL_REGISTERS, Process, Snapshot
from vcsimg.image.units import PIECE_SIZE

_UNUSABLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)
_BUILD_ID = re.compile(r"[0-9a-f]{4,128}")


def write_raw(snapshot: Snapshot, directory: Path, *, progress: Progress | None = None) -> None:
    """Write all processes of an image, and the mapped files' contents, as plain files (modes 0600 and 0700).

    The directory appears when it is whole; it must not exist before, or be empty. Memory in use stays at a few MiB.
    `progress` gets the bytes of extents done, and in total. Raises ExportError, AccessError, DamagedImage.
    """
    with new_directory(directory) as root:
        for process in snapshot.processes:
            folder = root / str(process.pid)
            make_directory(folder / "memory")
            make_directory(folder / "state")
            lines = "".join(region.line() + "\n" for region in process.regions)
            _write(folder / "map", [lines.encode("utf-8", "surrogateescape")])
            _write(folder / "threads", [format_records(_threads(process))])
            for section, records in process.state.items():
                _write(folder / "state" / section.replace("/", "_"), [format_records(records)])
            _write_memory(process, folder, progress)
        _write_files(snapshot, root / "files")


def _write_memory(process: Process, folder: Path, progress: Progress | None) -> None:
    with Content(process) as content:
        extents = [extent for region in process.regions for extent in content.extents(region)]
        _write(folder / "extents", (f"{extent.start:012x}-{extent.end:012x} {extent.kind.value}\n".encode() for extent in extents))
        total = sum(len(extent) for extent in extents if extent.kind is Kind.DATA)
        done = 0
        for extent in extents:
            if extent.kind is not Kind.DATA:
                continue
            with create(folder / "memory" / f"{extent.start:012x}-{extent.end:012x}.bin") as stream:
                sink = Sink(stream)
                for length in sink.copy(content.chunks(extent)):
                    done += length
                    if progress is not None:
                        progress(done, total)
                sink.finish()


def _threads(process: Process) -> Iterator[Record]:
    for thread in process.threads:
        values = {name: hex(thread.registers[name]) for name in GENERAL_REGISTERS if name in thread.registers}
        yield Record.make("thread", tid=thread.tid)
        yield Record("registers", values)
        if thread.xsave:
            yield Record.make("xsave", data=thread.xsave)
        yield from thread.records


def _write_files(snapshot: Snapshot, root: Path) -> None:
    """Contents of the mapped files by their paths. Of two files of one path the second, and any path that cannot be one here
    (an image is untrusted), goes to .sha256/."""
    root.mkdir(0o700)
    placed: dict[str, Path] = {}
    for process in snapshot.processes:
        for file in process.mapped:
            content = file_content(snapshot, process, file)
            if content is None or file.sha256 is None or file.sha256 in placed:
                continue
            size, read = content
            path = root / below(file.path)
            try:
                stream = create(path)
            except OSError as error:
                if error.errno not in _UNUSABLE:
                    raise
                path = root / ".sha256" / below(file.sha256)
                stream = create(path)
            with stream:
                for offset in range(0, size, PIECE_SIZE):
                    stream.write(read(offset, min(PIECE_SIZE, size - offset)))
            placed[file.sha256] = path
    for process in snapshot.processes:
        for file in process.mapped:
            if file.sha256 in placed and file.build_id and _BUILD_ID.fullmatch(file.build_id):
                _link_build_id(root, file.build_id, placed[file.sha256])
        _link_libraries(process, root, placed)


def _link_build_id(root: Path, build_id: str, file: Path) -> None:
    """Names by which gdb finds a program (.build-id/ab/cd…) and its symbols (the same with .debug)."""
    for suffix in ("", ".debug"):
        link = root / ".build-id" / build_id[:2] / (build_id[2:] + suffix)
        make_directory(link.parent)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(file, link.parent))


def _link_libraries(process: Process, root: Path, placed: dict[str, Path]) -> None:
    """The names by which the dynamic linker knows the libraries, which are those that debuggers look for."""
    if process.memory is None:
        return
    sha256s = process.backing()
    for name, dynamic in loaded_libraries(process.memory, auxiliary_vector(process)):
        region = process.regions.find(dynamic)
        file = placed.get(sha256s.get((region.device, region.inode), "")) if region else None
        link = root / below(name)
        if file is None or not name.startswith("/") or link.exists():
            continue
        try:
            make_directory(link.parent)
            link.symlink_to(os.path.relpath(file, link.parent))
        except OSError as error:
            if error.errno not in _UNUSABLE:
                raise


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with create(path) as stream:
        stream.writelines(parts)
