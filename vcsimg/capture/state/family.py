"""Sections `family` and `shared`: what the processes of a tree have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key

from vcsimg.capture.state.ipc import IpcReader
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.status import nested
from vcsimg.capture.state.terminals import typed_ahead
from vcsimg.image.sections.family import Child, SharedFile, SharedTable, Zombie
from vcsimg.image.sections.item import Item, records
from vcsimg.image.snapshot import Process, Section
from vcsimg.kernel import kcmp, procfs
from vcsimg.process import HeldProcess

_TABLES = (
    (kcmp.FILES, "files"),
    (kcmp.FS, "fs"),
    (kcmp.VM, "memory"),
    (kcmp.SIGHAND, "handlers"),
    (kcmp.IO, "io"),
    (kcmp.SYSVSEM, "semaphores"),
)


@dataclass(frozen=True, slots=True)
class _Dead:
    """A zombie, as read."""

    stat: bytes
    status: bytes


class TreeState:
    """Reads what the processes of a tree share, and the dead that were not waited for."""

    def read_held(self, helds: Sequence[HeldProcess]) -> None:
        """While all of them are stopped; the order is the one in which they are kept."""
        self._children: dict[int, list[int]] = {}
        self._dead: dict[int, _Dead] = {}
        self._tables: dict[int, list[SharedTable]] = {}
        self._files: dict[int, list[SharedFile]] = {}
        self._ipc = IpcReader()
        self._ipc.read(helds)
        pids = [held.pid for held in helds]
        self._speakers = {held.pid: held.threads[0].tid for held in helds}
        for pid in pids:
            self._children[pid] = procfs.children(pid)
            for child in self._children[pid]:
                if child not in pids:
                    self._read_dead(child)
        if len(pids) > 1:
            self._read_tables(pids)
            self._read_files(pids)

    def _read_dead(self, pid: int) -> None:
        try:
            proc = ProcDirectory.of(pid)
            stat, status = proc.read("stat"), proc.read("status")
        except OSError:
            return
        if procfs.parse_stat(stat).state == "Z":
            self._dead[pid] = _Dead(stat, status)

    def _read_tables(self, pids: Sequence[int]) -> None:
        for index, pid in enumerate(pids):
            self._tables[pid] = [
                SharedTable(name, other)
                for kind, name in _TABLES
                if (other := next((other for other in pids[:index] if self._same(kind, other, pid)), None)) is not None
            ]

    def _same(self, kind: int, one: int, other: int) -> bool:
        try:
            return kcmp.same(self._speakers[one], self._speakers[other], kind)
        except OSError:
            return False

    def _read_files(self, pids: Sequence[int]) -> None:
        """Descriptors that lead to the same name may be of one open file; kcmp(2) tells, and puts them in an order."""
        alike: dict[str, list[tuple[int, int]]] = {}
        for pid in pids:
            directory = ProcDirectory.of(self._speakers[pid]).directory("fd")
            for fd in sorted(map(int, directory.names())):
                alike.setdefault(directory.link(str(fd)), []).append((pid, fd))
        rank = {pid: index for index, pid in enumerate(pids)}
        for group in alike.values():
            if len({pid for pid, _ in group}) > 1:
                for same in _classes(group, self._speakers):
                    self._note(sorted(same, key=lambda one: (rank[one[0]], one[1])))

    def _note(self, same: Sequence[tuple[int, int]]) -> None:
        """One open file: its first owner keeps it, each other process says so once."""
        first_pid, first_fd = same[0]
        seen = {first_pid}
        for pid, fd in same:
            if pid not in seen:
                seen.add(pid)
                self._files.setdefault(pid, []).append(SharedFile(fd, first_pid, first_fd))

    def finish(self, processes: Iterable[Process]) -> list[Process]:
        """The processes with the sections added, and what only all of them together tell."""
        processes = list(processes)
        lost = typed_ahead(processes)
        return [
            replace(
                process,
                state={
                    **process.state,
                    **self._sections(process.pid),
                    **(self._ipc.sections() if process is processes[0] else {}),
                    "unsaved": (
                        *process.section("unsaved"),
                        *records(lost[process.pid]),
                        *records(self._ipc.unsaved(self._speakers[process.pid], root=process is processes[0])),
                    ),
                },
            )
            for process in processes
        ]

    def _sections(self, pid: int) -> dict[str, Section]:
        family: list[Item] = []
        for child in self._children.get(pid, ()):
            dead = self._dead.get(child)
            family.append(_zombie(dead) if dead is not None else Child(child))
        shared: list[Item] = [*self._tables.get(pid, ()), *sorted(self._files.get(pid, ()), key=lambda file: file.fd)]
        return {name: records(items) for name, items in (("family", family), ("shared", shared)) if items}


def _zombie(dead: _Dead) -> Zombie:
    stat, status = procfs.parse_stat(dead.stat), procfs.parse_status(dead.status)
    return Zombie(
        pid=stat.pid,
        name=stat.comm,
        group=stat.pgrp,
        session=stat.session,
        start=stat.starttime,
        exit_signal=stat.exit_signal,
        exit_status=stat.exit_code,
        uid=int(status["Uid"].split()[0]),
        gid=int(status["Gid"].split()[0]),
        namespace_pids=nested(status.get("NSpid")),
        namespace_groups=nested(status.get("NSpgid")),
        namespace_sessions=nested(status.get("NSsid")),
    )


def _classes(group: list[tuple[int, int]], speakers: Mapping[int, int]) -> list[list[tuple[int, int]]]:
    """Descriptors (pid, fd) by the open file that they refer to."""

    def order(one: tuple[int, int], other: tuple[int, int]) -> int:
        return kcmp.order(speakers[one[0]], speakers[other[0]], kcmp.FILE, one[1], other[1])

    try:
        ordered = sorted(group, key=cmp_to_key(order))
        classes = [[ordered[0]]]
        for one in ordered[1:]:
            if order(classes[-1][0], one) == 0:
                classes[-1].append(one)
            else:
                classes.append([one])
    except OSError:
        return _alike(group)
    return classes


def _alike(group: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Without kcmp: the same flags and offset are taken for the same open file, as fork(2) makes them."""
    classes: dict[bytes, list[tuple[int, int]]] = {}
    for pid, fd in group:
        try:
            position = procfs.read(pid, f"fdinfo/{fd}").split(b"\nmnt_id", 1)[0]
        except OSError:
            position = b""
        classes.setdefault(position, []).append((pid, fd))
    return list(classes.values())
