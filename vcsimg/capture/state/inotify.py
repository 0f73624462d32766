"""inotify descriptors. fdinfo tells inodes, not paths: those are looked for."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
from collections.abc import Iterator
from itertools import islice

from vcsimg.capture.state.descriptors import Descriptor, Table
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.files import InotifyWatch
from vcsimg.kernel import handles, statx

_WATCH = re.compile(
    rb"inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) mask:([0-9a-f]+) ignored_mask:[0-9a-f]+"
    rb"(?: fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]+))?"
)
"""fs/notify/fdinfo.c, inotify_fdinfo."""


_ENTRIES = 10_000


class InotifyProbe:
    """Reads the watches."""

    def __init__(self) -> None:
        self._tid = 0
        self._queued: dict[int, int] = {}
        self._paths: dict[tuple[str, int], str] = {}
        self._near: list[str] = []

    def wants(self, descriptor: Descriptor) -> bool:
        return descriptor.type == "inotify"

    def read(self, descriptor: Descriptor, own: int, table: Table) -> None:
        (self._queued[descriptor.fd],) = struct.unpack("i", fcntl.ioctl(own, termios.FIONREAD, bytes(4)))
        self._tid = table.tid
        self._near = [other.text for other in table.descriptors.values() if other.text.startswith("/")]

    def describe(self, descriptor: Descriptor, report: Report) -> None:
        for found in _WATCH.finditer(descriptor.info):
            device, inode = statx.decode_device(int(found[3], 16)), int(found[2], 16)
            handle_type = int(found[5], 16) if found[5] else None
            handle = bytes.fromhex(found[6].decode()) if found[6] else None
            path = self._path(device, inode, handle_type, handle)
            report.add(
                "files",
                InotifyWatch(descriptor.fd, int(found[1], 16), device, inode, int(found[4], 16), handle_type, handle, path),
            )
            if path is None:
                report.unsaved(
                    f"fd {descriptor.fd}",
                    f"no path was found for inode {inode} on device {device}, which it watches (finding it needs CAP_DAC_READ_SEARCH)",
                )
        if queued := self._queued[descriptor.fd]:
            report.unsaved(f"fd {descriptor.fd}", f"{queued} bytes of inotify events that were not read yet cannot be copied")

    def _path(self, device: str, inode: int, handle_type: int | None, handle: bytes | None) -> str | None:
        """A path as the process sees it that leads to an inode: one that was found before, one close to files that the process uses, or
        by the file handle."""
        known = self._paths.get((device, inode))
        for path in [*([known] if known else []), *self._candidates()]:
            if self._leads_to(path, device, inode):
                self._paths[device, inode] = path
                return path
        if handle is not None and handle_type is not None:
            opened = handles.path_of(self._tid, device, handle_type, handle)
            if opened is not None and self._leads_to(opened, device, inode):
                self._paths[device, inode] = opened
                return opened
        return self._inside_current_directory(device, inode)

    def _inside_current_directory(self, device: str, inode: int) -> str | None:
        """What programs watch by a short name."""
        try:
            directory = os.readlink(f"/proc/{self._tid}/cwd")
            with os.scandir(f"/proc/{self._tid}/cwd") as entries:
                for entry in islice(entries, _ENTRIES):
                    path = os.path.join(directory, entry.name)
                    if entry.inode() == inode and self._leads_to(path, device, inode):
                        self._paths[device, inode] = path
                        return path
        except OSError:
            pass
        return None

    def _candidates(self) -> Iterator[str]:
        """Paths that programs watch most: where they are, what they were told to look at, what they have open, and the directories of these."""
        near = list(self._near)
        for name in ("cwd", "exe"):
            try:
                near.append(os.readlink(f"/proc/{self._tid}/{name}"))
            except OSError:
                continue
        try:
            with open(f"/proc/{self._tid}/cmdline", "rb") as file:
                arguments = [os.fsdecode(word) for word in file.read().split(b"\0") if word]
            directory = os.readlink(f"/proc/{self._tid}/cwd")
            near += [os.path.normpath(os.path.join(directory, word)) for word in arguments]
        except OSError:
            pass
        seen: set[str] = set()
        for path in near:
            while path not in seen:
                seen.add(path)
                yield path
                path = os.path.dirname(path)

    def _leads_to(self, path: str, device: str, inode: int) -> bool:
        try:
            found = statx.statx(f"/proc/{self._tid}/root{path}")
        except OSError:
            return False
        return found.inode == inode and found.device == device
