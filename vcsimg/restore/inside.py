"""A capture of processes in a pid namespace, such as one that was restored before, has their ids as vcsimg saw them, and as they see themselves.
They come back with the latter: those are what stands in their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vcsimg.errors import RestoreError
from vcsimg.image.records import Record
from vcsimg.image.sections import family, files, places, sockets, status, terminals, timers
from vcsimg.image.sections.item import Item, select
from vcsimg.image.sections.thread import NamespaceTids
from vcsimg.image.snapshot import Process, Section, Snapshot, Thread

Ids = dict[int, int]


def as_they_see(snapshot: Snapshot) -> Snapshot:
    """The same, with the ids that the processes themselves know. Raises RestoreError, HostileImage."""
    identities = [_identity(process) for process in snapshot.processes]
    depths = {len(identity.namespace_pids) for identity in identities if identity is not None}
    if len(depths) > 1:
        raise RestoreError("process ids", "processes of the capture are in several pid namespaces")
    if depths <= {0, 1}:
        return snapshot
    ids: Ids = {}
    for process, identity in zip(snapshot.processes, identities, strict=True):
        if identity is not None:
            ids[identity.pid] = identity.namespace_pids[-1]
            _note(ids, identity.group, identity.namespace_groups)
            _note(ids, identity.session, identity.namespace_sessions)
        for thread in process.threads:
            for own in select(thread.records, NamespaceTids):
                _note(ids, thread.tid, own.namespace_tids)
        for zombie in select(process.section("family"), family.Zombie):
            _note(ids, zombie.pid, zombie.namespace_pids)
            _note(ids, zombie.group, zombie.namespace_groups)
            _note(ids, zombie.session, zombie.namespace_sessions)
    return replace(snapshot, processes=tuple(_process(process, ids) for process in snapshot.processes))


def _identity(process: Process) -> status.Identity | None:
    return next(iter(select(process.section("status"), status.Identity)), None)


def _note(ids: Ids, outer: int, nested: tuple[int, ...] | None) -> None:
    if nested:
        ids[outer] = nested[-1]


def _process(process: Process, ids: Ids) -> Process:
    users = _map(process, "uid")
    groups = _map(process, "gid")
    return replace(
        process,
        pid=ids.get(process.pid, process.pid),
        parent=ids.get(process.parent, process.parent),
        threads=tuple(_thread(thread, ids, users, groups) for thread in process.threads),
        state={name: _section(section, ids, users, groups) for name, section in process.state.items()},
    )


def _map(process: Process, which: str) -> list[places.IdMap]:
    return [one for one in select(process.section("namespaces"), places.IdMap) if one.which == which]


def _thread(thread: Thread, ids: Ids, users: list[places.IdMap], groups: list[places.IdMap]) -> Thread:
    return replace(thread, tid=ids.get(thread.tid, thread.tid), records=_section(thread.records, ids, users, groups))


def _section(section: Section, ids: Ids, users: list[places.IdMap], groups: list[places.IdMap]) -> Section:
    return tuple(_record(record, ids, users, groups) for record in section)


_IDS: Mapping[type[Item], tuple[str, ...]] = {
    status.Identity: ("pid", "parent", "group", "session"),
    family.Zombie: ("pid", "group", "session"),
    family.SharedFile: ("process",),
    family.SharedTable: ("process",),
    files.Owner: ("id",),
    files.Pidfd: ("pid",),
    files.QueueWatch: ("process",),
    timers.PosixTimer: ("target",),
    sockets.Socket: ("peer_pid",),
    terminals.Control: ("foreground",),
}
"""Where ids of processes, groups and sessions stand."""
_KINDS = {item.kind: item for item in _IDS}


def _record(record: Record, ids: Ids, users: list[places.IdMap], groups: list[places.IdMap]) -> Record:
    item = _KINDS.get(record.kind)
    if item is not None:
        found = item.parse(record)
        changes = {name: ids.get(getattr(found, name), getattr(found, name)) for name in _IDS[item]}
        return replace(found, **changes).record()  # type: ignore[type-var]
    if record.kind == sockets.Message.kind and record.get("sender") is not None:
        message = sockets.Message.parse(record)
        if message.sender is not None and len(message.sender) == 3:
            pid, user, group = message.sender
            return replace(message, sender=(ids.get(pid, pid), _inner(user, users), _inner(group, groups))).record()
    if record.kind == status.Credentials.kind:
        rights = status.Credentials.parse(record)
        uid, gid = tuple(_inner(number, users) for number in rights.uid), tuple(_inner(number, groups) for number in rights.gid)
        return replace(rights, uid=uid, gid=gid, groups=tuple(_inner(number, groups) for number in rights.groups)).record()
    return record


def _inner(number: int, maps: list[places.IdMap]) -> int:
    for one in maps:
        if one.outside <= number < one.outside + one.count:
            return one.inside + number - one.outside
    return number
