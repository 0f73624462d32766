"""Section `mounts`: the mounts that hold what the process uses."""

from __future__ import annotations

import os

from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.places import Mount
from vcsimg.kernel.handles import unescape
from vcsimg.kernel.statx import device_name

_NAMED = 3
_EVERYWHERE = ("proc", "devpts", "mqueue", "cgroup", "cgroup2", "sysfs")
"""File systems that each namespace has a view of its own of."""


def _own_mounts() -> bytes:
    with open("/proc/self/mountinfo", "rb") as file:
        return file.read()


def _mounted(content: bytes) -> set[tuple[str, str]]:
    """Where something is mounted, and its type."""
    mounts = [_parse(line) for line in content.splitlines()]
    return {(mount.point, mount.type) for mount in mounts if mount.type not in _EVERYWHERE}


class MountsReader:
    """Reads mounts by their ids. Which mount an id means does not change while something is open on it, so the list may be read when the
    process runs again."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._proc = moment.proc

    def finish(self, ids: set[int], report: Report) -> None:
        """Write the section for mounts with these ids, in ascending order. An id without a line is a mount inside the kernel (of pipes,
        sockets, memory files), or one that was detached."""
        content = self._proc.try_read("mountinfo") or b""
        for line in content.splitlines():
            identifier = int(line[: line.index(b" ")])
            if identifier in ids:
                self._known[identifier] = line
        self._known = {identifier: line for identifier, line in self._known.items() if identifier in ids}
        report.add("mounts", *(_parse(line) for _, line in sorted(self._known.items())))

    def compare(self, report: Report) -> None:
        """Of a process in another mount namespace than vcsimg: what is mounted where else. Nothing is said of one with another root, which
        does not see them all."""
        if self._proc.link("root") != "/":
            return
        ours, theirs = _mounted(_own_mounts()), _mounted(self._proc.try_read("mountinfo") or b"")
        others = sorted(ours ^ theirs)
        if others:
            words = ", ".join(f"{mount[0]} ({mount[1]})" for mount in others[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            report.unsaved(
                "mounts", f"it is in a mount namespace of its own, where other things are mounted than here: {words}{more}"
            )


def _parse(line: bytes) -> Mount:
    """`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; proc_pid_mountinfo(5)."""
    before, _, after = line.partition(b" - ")
    identifier, parent, device, root, point, options, *propagation = before.split(b" ")
    kind, source, super_options = after.split(b" ", 2)
    major, minor = device.split(b":")
    return Mount(
        id=int(identifier),
        parent=int(parent),
        device=device_name(int(major), int(minor)),
        root=unescape(root),
        point=unescape(point),
        options=os.fsdecode(options),
        propagation=" ".join(map(os.fsdecode, propagation)),
        type=os.fsdecode(kind),
        source=unescape(source),
        super_options=os.fsdecode(super_options),
    )
