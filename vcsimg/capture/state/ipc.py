"""Section `ipc`: System V IPC objects.

The kernel does not tell which processes know an object. Taken are: all of an IPC namespace other than ours; of ours, segments that are mapped,
objects whose maker or last user is one of the processes, and semaphores and queues that its user has made since it was started.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import NoReturn

from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.image.records import Record
from vcsimg.image.sections.ipc import Queue, QueuedMessage, Segment, SegmentData, Semaphores
from vcsimg.image.sections.item import Item, records
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import Section
from vcsimg.kernel import kcmp, pidfd, sysvipc
from vcsimg.kernel.calls import call
from vcsimg.kernel.clone import CLONE_NEWIPC, CLONE_NEWUSER
from vcsimg.kernel.procfs import parse_stat
from vcsimg.kernel.syscalls import NR
from vcsimg.process import HeldProcess

_TICKS = os.sysconf("SC_CLK_TCK")
_CHUNK = 1 << 20
_LARGEST = 4 << 20
_PART = 4096


class IpcReader:
    """Reads them for all processes of a capture."""

    def read(self, helds: Sequence[HeldProcess]) -> None:
        """While they are stopped."""
        self._found: list[Item] = []
        pid = helds[0].threads[0].tid
        try:
            other = os.readlink(f"/proc/{pid}/ns/ipc") != os.readlink("/proc/self/ns/ipc")
        except OSError:
            return  # a kernel without IPC namespaces
        if not other and not sysvipc.any_objects():
            return
        root = ProcDirectory.of(pid)
        pids = {held.pid for held in helds}
        if other:
            self._found = _there(pid, root)
        else:
            mapped = _mapped(helds)
            stat, status = parse_stat(root.read("stat")), root.read("status")
            uid = int(status[status.index(b"\nUid:") + 5 :].split()[1])
            self._found = _here(mapped, pids, uid, _boot_time() + stat.starttime // _TICKS)

    def sections(self) -> dict[str, Section]:
        """The section for the root process."""
        found = [one for one in self._found if not isinstance(one, Unsaved)]
        return {"ipc": records(found)} if found else {}

    def unsaved(self, pid: int, *, root: bool) -> list[Item]:
        """What of a process cannot be read; of the root process, also of the objects."""
        found: list[Item] = [one for one in self._found if root and isinstance(one, Unsaved)]
        if any(isinstance(one, Semaphores) for one in self._found) and _may_undo(pid):
            found.append(Unsaved("semaphore adjustments", "no system call tells what SEM_UNDO would undo, if anything"))
        return found


def _may_undo(pid: int) -> bool:
    """Whether a process has a list of adjustments (as it also has by starting a thread). A new process has none, so the two have the same."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    try:
        return not kcmp.same(pid, child, kcmp.SYSVSEM)
    except OSError:
        return False
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _mapped(helds: Sequence[HeldProcess]) -> set[int]:
    """Ids of segments that are mapped: their inode."""
    found = set()
    for held in helds:
        with suppress(OSError):
            for line in ProcDirectory.of(held.threads[0].tid).read("maps").splitlines():
                if b" /SYSV" in line:
                    found.add(int(line.split()[4]))
    return found


@cache
def _boot_time() -> int:
    with open("/proc/stat") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime"))


def _here(mapped: set[int] | None, pids: set[int], uid: int, since: int) -> list[Item]:
    """Objects of our IPC namespace; `mapped` None: all of them."""

    def wanted(one: sysvipc.Object, users: set[int]) -> bool:
        own = one.values["cuid"] == uid and one.values["ctime"] >= since
        return mapped is None or own or bool(users & pids)

    found: list[Item] = []
    for one in sysvipc.objects("shm"):
        values = one.values
        if mapped is None or one.id in mapped or {values["cpid"], values["lpid"]} & pids:
            attached = values["nattch"] > 0
            found.append(
                Segment(one.id, one.key & 0xFFFFFFFF, values["perms"], values["size"], values["uid"], values["gid"], attached)
            )
            if not attached:
                found += _content(one.id, values["size"])
    for one in sysvipc.objects("sem"):
        with suppress(OSError):
            count = one.values["nsems"]
            if wanted(one, set() if mapped is None else sysvipc.last_users(one.id, count)):
                found.append(_semaphores(one, sysvipc.semaphores(one.id, count)))
    for one in sysvipc.objects("msg"):
        if wanted(one, {one.values["lspid"], one.values["lrpid"]}):
            found += _queue(one)
    return found


def _content(identifier: int, size: int) -> list[Item]:
    """Of a segment that nobody has attached."""
    what = f"System V shared memory {identifier}"
    if size > _LARGEST:
        return [Unsaved(what, f"no process has it attached, and of such segments only up to {_LARGEST} bytes are kept")]
    try:
        data = sysvipc.content(identifier, size)
    except OSError as error:
        return [Unsaved(what, f"no process has it attached, and its content cannot be read: {error.strerror}")]
    parts = ((offset, data[offset : offset + _PART]) for offset in range(0, size, _PART))
    return [SegmentData(identifier, offset, part) for offset, part in parts if part.strip(b"\0")]


def _semaphores(one: sysvipc.Object, values: tuple[int, ...]) -> Item:
    return Semaphores(one.id, one.key & 0xFFFFFFFF, one.values["perms"], one.values["uid"], one.values["gid"], values)


def _queue(one: sysvipc.Object) -> list[Item]:
    values = one.values
    queue = Queue(one.id, one.key & 0xFFFFFFFF, values["perms"], values["uid"], values["gid"], sysvipc.limit(one.id))
    try:
        waiting = sysvipc.messages(one.id, values["cbytes"])
    except OSError as error:
        reason = f"the messages that wait cannot be copied: {error.strerror}"
        return [queue, Unsaved(f"System V message queue {one.id}", reason)] if values["qnum"] else [queue]
    return [queue, *(QueuedMessage(one.id, kind, data) for kind, data in waiting)]


def _there(pid: int, proc: ProcDirectory) -> list[Item]:
    """All objects of another IPC namespace, read by a child of ours that enters it."""
    flags = CLONE_NEWIPC
    if proc.link("ns/user") != os.readlink("/proc/self/ns/user"):
        flags |= CLONE_NEWUSER
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _enter_and_tell(pid, flags, writing)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    if not data:
        return [Unsaved("System V IPC", "the IPC namespace cannot be entered")]
    kinds = {item.kind: item for item in (Segment, SegmentData, Semaphores, Queue, QueuedMessage, Unsaved)}
    return [kinds[kind].parse(Record(kind, fields)) for kind, fields in json.loads(data)]


def _enter_and_tell(pid: int, flags: int, writing: int) -> NoReturn:
    try:
        call(NR["setns"], pidfd.open(pid), flags)
        found = records(_here(None, set(), 0, 0))
        with open(writing, "w") as file:
            json.dump([(record.kind, dict(record.fields)) for record in found], file)
    finally:
        os._exit(0)
