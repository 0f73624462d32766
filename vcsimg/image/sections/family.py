"""Sections `family` and `shared`: what a process of a tree has in common with the others of it."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item
from vcsimg.image.sections.names import SignalNumber


@dataclass(frozen=True, slots=True)
class Child(Item, kind="child"):
    """A living child, eldest first."""

    pid: int


@dataclass(frozen=True, slots=True)
class Zombie(Item, kind="zombie"):
    """A child that ended and was not waited for. `exit_status` as wait(2) stores it."""

    pid: int
    name: str
    group: int
    session: int
    start: int
    exit_signal: SignalNumber
    exit_status: Hex | None
    uid: int
    gid: int
    namespace_pids: tuple[int, ...] | None
    namespace_groups: tuple[int, ...] | None
    namespace_sessions: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SharedFile(Item, kind="shared_file"):
    """This open file is also that of an earlier process of the tree: same offset, same flags."""

    fd: int
    process: int
    process_fd: int


@dataclass(frozen=True, slots=True)
class SharedTable(Item, kind="shared_table"):
    """A kernel object in common with an earlier process: clone(2), CLONE_*.

    `table`: files, fs, memory, handlers, io or semaphores.
    """

    table: str
    process: int
