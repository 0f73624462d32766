"""Section `mounts`: the mounts that hold what the process uses."""

from __future__ import annotations

import os

from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.places import Mount
from vcsimg.kernel.handles import unescape
from vcsimg.kernel.statx import device_name


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
