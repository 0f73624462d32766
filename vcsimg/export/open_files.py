"""The contents of files that the processes of an image had open, as files below a directory, by their paths.

DIRECTORY/home/me/log           the file that was open as /home/me/log
DIRECTORY/.nameless/PID-FD      a file that no path led to: deleted, or in memory
"""

from __future__ import annotations

import os
from pathlib import Path

from vcsimg.errors import ExportError
from vcsimg.export.sink import below, create, new_directory
from vcsimg.image.snapshot import Snapshot
from vcsimg.image.units import PIECE_SIZE
from vcsimg.image.versions import Read, contents, nameless, reader


def write_open_files(snapshot: Snapshot, directory: Path) -> int:
    """Write what the image holds of open files, with the times that they had, and modes 0600 and 0700. Returns how many.

    The directory appears when it is whole; it must not exist before, or be empty. Raises ExportError, HostileImage, DamagedImage.
    """
    written: set[Path] = set()
    with new_directory(directory) as root:
        for process in snapshot.processes:
            for content in contents(process):
                read = reader(process, content)
                path = below(content.path)
                if read is not None and path not in written:
                    written.add(path)
                    _write(root / path, read, content.mtime)
            for file, read in nameless(process):
                path = Path(".nameless") / f"{process.pid}-{file.fd}"
                written.add(path)
                _write(root / path, read, file.mtime)
        if not written:
            raise ExportError(
                str(directory), "the capture holds no contents of open files", remedy="`vcsimg show REVISION` says what it has."
            )
    return len(written)


def _write(path: Path, read: Read, mtime: int | None) -> None:
    with create(path) as stream:
        offset = 0
        while data := read(offset, PIECE_SIZE):
            stream.write(data)
            offset += len(data)
    if mtime is not None and 0 <= mtime < 1 << 62:
        os.utime(path, ns=(mtime, mtime))
