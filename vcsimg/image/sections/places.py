"""Sections `namespaces`, `cgroup` and `mounts`: where in the system the process lives."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Item


@dataclass(frozen=True, slots=True)
class Namespace(Item, kind="namespace"):
    """A namespace by its name in /proc/PID/ns and its inode. `own`: not the one that vcsimg itself was in."""

    type: str
    inode: int
    own: bool


@dataclass(frozen=True, slots=True)
class IdMap(Item, kind="id_map"):
    """A line of uid_map or gid_map (`which`), user_namespaces(7). Only of a user namespace other than vcsimg's."""

    which: str
    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class TimeOffset(Item, kind="time_offset"):
    """A line of timens_offsets, time_namespaces(7): how far the clock is ahead of the host's, when it is."""

    clock: str
    seconds: int
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class HostName(Item, kind="host_name"):
    """uname(2), uts_namespaces(7): what the machine is called in a UTS namespace other than vcsimg's."""

    node: str
    domain: str


@dataclass(frozen=True, slots=True)
class Cgroup(Item, kind="cgroup"):
    """A line of /proc/PID/cgroup, cgroups(7). `controllers` is empty for the unified hierarchy (0)."""

    hierarchy: int
    controllers: str
    path: str


@dataclass(frozen=True, slots=True)
class Mount(Item, kind="mount"):
    """A line of /proc/PID/mountinfo, proc(5), for a mount that holds the current directory, the root, or an open file."""

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: str
    propagation: str
    type: str
    source: str
    super_options: str
