"""What of the system around a process is not in the image, so that it would find another one, and would compute on with what is not true any more:
namespaces, and state that no system call shows. Refused, unless `--incomplete` says that it does not matter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vcsimg.errors import RestoreError
from vcsimg.image.sections.item import select
from vcsimg.image.sections.places import HostName, IdMap, Namespace, TimeOffset
from vcsimg.image.sections.status import SessionKeyring
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.kernel import keyrings
from vcsimg.restore.context import RestoreOptions
from vcsimg.restore.spent import note_on_processor_time

OPTION = "--incomplete"
_UNASKED = "borrowed system calls"
"""What captures name as not saved when they could have nothing done by the process."""
_NEEDED = re.compile(
    r"mounts|landlock|local descriptor table|(process|thread \d+) (keyring|I/O permissions)"
    r"|thread \d+ (file descriptors|current directory, root and umask|\w+ namespace)"
)
_CUT_SHORT = re.compile(r"thread \d+ .* (to|from) fd \d+")
"""System calls that the stop of the capture ended early."""


def check_elsewhere(snapshot: Snapshot, options: RestoreOptions, notes: list[str]) -> None:
    """Raises RestoreError, or says it in `notes`."""

    def refuse(resource: str, reason: str) -> None:
        if not options.incomplete:
            raise RestoreError(resource, reason, option=OPTION)
        notes.append(f"{resource}: {reason}")

    names = {name for process in snapshot.processes for name in select(process.section("namespaces"), HostName)}
    if len(names) > 1:
        refuse("host names", "processes of the capture were in several UTS namespaces")
    for process in snapshot.processes:
        what = f"process {process.pid}"
        for lost in select(process.section("unsaved"), Unsaved):
            if lost.resource == _UNASKED:
                if not options.incomplete:
                    reason = f"its signal handlers and more are not in the capture: {lost.reason}"
                    raise RestoreError(what, reason, option=OPTION)
            elif _NEEDED.fullmatch(lost.resource) and not options.incomplete:
                raise RestoreError(f"{what} {lost.resource}", lost.reason, option=OPTION)
            verb = "was not finished" if _CUT_SHORT.fullmatch(lost.resource) else "was not captured"
            notes.append(f"{what} {lost.resource} {verb}: {lost.reason}")
        for kind, reason in _namespaces(process):
            refuse(f"{what} {kind} namespace", reason)
    notes.extend(_session_keyrings(snapshot))
    note_on_processor_time(snapshot.processes, notes)


def _session_keyrings(snapshot: Snapshot) -> Iterator[str]:
    """Those that vcsimg shared with a process when it captured it, and does not now: a note for each of them. (Others are named above.)"""
    seen = {keyrings.own_session()}
    for process in snapshot.processes:
        lost = {one.resource for one in select(process.section("unsaved"), Unsaved)}
        for ring in select(process.section("status"), SessionKeyring):
            if ring.serial not in seen and f"session keyring {ring.name}" not in lost:
                seen.add(ring.serial)
                yield f"process {process.pid}: its session keyring is not {ring.name} any more, which had {ring.keys} keys in it, but that of vcsimg"


def _namespaces(process: Process) -> list[tuple[str, str]]:
    """Those that are not made again, and why that matters."""
    section = process.section("namespaces")
    found = {one.type: one for one in select(section, Namespace)}
    own = {one.type for one in found.values() if one.own}
    troubles = []
    if "net" in own:
        troubles.append(("network", "it was in another one than vcsimg, and would find the interfaces and ports of this one"))
    if any(offset.seconds or offset.nanoseconds for offset in select(section, TimeOffset)):
        troubles.append(("time", "its clocks were set apart from those of the machine"))
    if "user" in own and {one.count for one in select(section, IdMap)} != {1}:
        troubles.append(("user", "its user and group ids meant others outside"))
    children = found.get("pid_for_children")
    if "pid" in found and (children is None or children.inode != found["pid"].inode):  # none: one that is empty still
        troubles.append(("pid", "its children would be made in another one than itself"))
    return troubles


def host_name(snapshot: Snapshot) -> HostName | None:
    """What the machine was called for the processes, if they had a UTS namespace of their own."""
    return next(iter(select(snapshot.processes[0].section("namespaces"), HostName)), None)
