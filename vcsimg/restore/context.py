"""What the parts of a restore share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.pages import FileSource, ImageMemory, NoFiles
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.restore.objects import Objects
from vcsimg.restore.ptys import Ptys
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.space import Space

FILES = ("keep", "rollback", "fail")
TCP = ("reset", "close", "keep")
OUTSIDE = ("fail", "close")


@dataclass(frozen=True)
class RestoreOptions:
    """What the user may choose.

    `standard`: descriptors of ours that stand in for 0, 1 and 2 of the processes, where those led out of the image; None:
    nothing does, what is written is thrown away. A terminal among them is not handed over itself where the image had one, too:
    a pty is put in between, if the caller will relay (`attended`). `files`: what to do about open files that have changed
    since; `tcp`: about connections to the world outside; `outside`: about ends of pipes and sockets that belonged to processes
    that are not in the image. `pokes`: bytes to write, by address, into the root process. `stopped`: leave the processes
    stopped (SIGSTOP). `host_pids`: no namespaces of their own. `incomplete`: also where nothing could be asked of a process
    when it was captured, as under a seccomp filter: its signal handlers, for one, are not known then.
    """

    standard: tuple[int | None, int | None, int | None] = (0, 1, 2)
    files: str = "keep"
    tcp: str = "reset"
    outside: str = "fail"
    pokes: Mapping[int, bytes] = field(default_factory=dict)
    stopped: bool = False
    host_pids: bool = False
    incomplete: bool = False
    attended: bool = True


@dataclass
class Context:
    """`root`: the folder that is the root of the processes, as we see it; `space`: where they live; `notes`: what is other than it was, a sentence each.
    `pids`: our ids of the processes, by theirs; `pipes`: both ends of each, by device and inode; `taken`: those that
    are given away already; `sockets`: by inode; `queues`: POSIX message queues, by device and inode. `skeletons`: the processes;
    `stand_ins`: the ptys for standard input, output and error, by process and descriptor. `unaccepted`: TCP connections that wait to be
    accepted again; `kept`: inodes of TCP connections that go on;
    `before_they_run`: what is done when nothing can fail any more. `places`: where to open files that are not to be opened at their path, by
    path and inode (see versions.py)."""

    snapshot: Snapshot
    options: RestoreOptions
    objects: Objects
    root: str
    ptys: Ptys
    space: Space
    notes: list[str] = field(default_factory=list)
    pids: dict[int, int] = field(default_factory=dict)
    pipes: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    taken: set[tuple[tuple[str, int], int]] = field(default_factory=set)
    sockets: dict[int, int] = field(default_factory=dict)
    skeletons: dict[int, Skeleton] = field(default_factory=dict)
    queues: dict[tuple[str, int], int] = field(default_factory=dict)
    stand_ins: dict[tuple[int, int], int] = field(default_factory=dict)
    owned: list[int] = field(default_factory=list)
    unaccepted: int = 0
    kept: set[int] = field(default_factory=set)
    before_they_run: list[Callable[[], None]] = field(default_factory=list)
    places: dict[tuple[str, int], str] = field(default_factory=dict)

    def at(self, what: str, path: str) -> str:
        """A path of the processes, as we see it. Raises RestoreError, HostileImage."""
        if path.startswith("("):
            raise RestoreError(what, f"the kernel told of no path that leads to it: {path}")
        if not path.startswith("/") or "/../" in f"{path}/" or "\0" in path:
            raise HostileImage(what, f"{path!r} is no absolute path")
        return self.root + path

    def own(self, fd: int) -> int:
        """A descriptor of ours, to be closed at the end."""
        self.owned.append(fd)
        return fd

    def stand_in(self, process: int, fd: int, number: int) -> int:
        """A descriptor of ours for what led out of the image: `number` 0, 1 or 2, whose open file the process has as `fd`."""
        given = self.options.standard[number]
        pty = self.stand_ins.get((process, fd))
        if given is None:
            return pty if pty is not None else self._nowhere()
        if self.options.attended and os.isatty(given):
            attended = self.ptys.attended
            return pty if pty is not None else attended.slave if attended is not None else given
        return given

    def _nowhere(self) -> int:
        return self.own(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        for fd in self.owned:
            os.close(fd)
        self.owned.clear()


def files_of(process: Process) -> FileSource:
    """Contents of files that the image holds."""
    return process.memory.files if isinstance(process.memory, ImageMemory) else NoFiles()
