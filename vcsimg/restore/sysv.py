"""System V IPC in an IPC namespace of their own: objects with the ids and keys that they had, made by the root process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.pages import FileSource, ImageMemory
from vcsimg.image.region import Region
from vcsimg.image.sections.ipc import Queue, QueuedMessage, Segment, SegmentData, Semaphores
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Snapshot
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import mman, sysvipc
from vcsimg.kernel.syscalls import NR
from vcsimg.restore import mqueues
from vcsimg.restore.remote import Call, Remote, failed
from vcsimg.restore.runs import own_runs
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.space import Space

_SYSV = "/SYSV"
_LARGEST_ID = 1 << 31
_CALLS = {"shm": ("shmget", "shmctl"), "sem": ("semget", "semctl"), "msg": ("msgget", "msgctl")}
_MOST = 1 << 18


class SharedObjects:
    """`segments`: those that are made, by id; their regions are attached, not mapped."""

    def __init__(self, snapshot: Snapshot, space: Space, notes: list[str]) -> None:
        self._snapshot = snapshot
        self._section = snapshot.processes[0].section("ipc")
        self._own_users = not space.user_namespace
        self._notes = notes
        self.segments: dict[int, Segment] = {}

    @staticmethod
    def needed(snapshot: Snapshot) -> bool:
        """Whether the processes need an IPC namespace of their own."""
        return bool(snapshot.processes[0].section("ipc")) or mqueues.needed(snapshot)

    def make(self, root: Skeleton) -> None:
        """All objects, and what waits in queues; segments are empty. Raises RestoreError, HostileImage."""
        for segment in select(self._section, Segment):
            if segment.size <= 0 or segment.id in self.segments:
                raise HostileImage(f"shared memory {segment.id}", f"a size of {segment.size}, or it stands twice")
            huge = sysvipc.SHM_HUGETLB if any("ht" in region.flags for region in self._regions_of(segment.id)) else 0
            self._create(root.main, "shm", segment, (segment.size,), huge)
            self.segments[segment.id] = segment
        for semaphores in select(self._section, Semaphores):
            self._create(root.main, "sem", semaphores, (len(semaphores.values),))
            values = root.main.put(b"".join((value & 0xFFFF).to_bytes(2, "little") for value in semaphores.values))
            calls: list[Call] = [(NR["semctl"], (semaphores.id, 0, sysvipc.SETALL, values))]
            root.main.all(calls, f"semaphores {semaphores.id}")
        for queue in select(self._section, Queue):
            self._create(root.main, "msg", queue, ())
        for message in select(self._section, QueuedMessage):
            if len(message.data) > _MOST:
                raise HostileImage(f"message queue {message.queue}", f"a message of {len(message.data)} bytes")
            text = root.main.put(sysvipc.message(message.type, message.data))
            args = (message.queue, text, len(message.data), sysvipc.IPC_NOWAIT)
            root.main.all([(NR["msgsnd"], args)], f"message queue {message.queue}")
            root.main.clear()
        root.main.clear()

    def _create(
        self, remote: Remote, which: str, wanted: Segment | Semaphores | Queue, size: tuple[int, ...], more: int = 0
    ) -> None:
        what = f"System V {which} {wanted.id}"
        if not 0 <= wanted.id < _LARGEST_ID:
            raise HostileImage(what, "it cannot have this id")
        get, control = (NR[name] for name in _CALLS[which])
        self._set_next(remote, sysvipc.NEXT_ID[which], wanted.id, what)
        flags = wanted.mode & 0o777 | sysvipc.IPC_CREAT | sysvipc.IPC_EXCL | more
        (identifier,) = remote.all([(get, (wanted.key, *size, flags))], what)
        if identifier != wanted.id:
            raise RestoreError(what, f"it has the id {identifier} now")
        limit = wanted.limit or 0 if isinstance(wanted, Queue) else 0
        uid, gid = (wanted.uid, wanted.gid) if self._own_users else (os.geteuid(), os.getegid())
        if not (self._own_users or limit):
            return
        description = remote.put(sysvipc.description(uid, gid, wanted.mode, limit))
        args = (wanted.id, 0, sysvipc.IPC_SET, description) if which == "sem" else (wanted.id, sysvipc.IPC_SET, description)
        (result,) = remote.batch([(control, args)])
        if failed(result):
            self._notes.append(f"{what} has another owner or limit than it had: {os.strerror(-result)}")

    @staticmethod
    def _set_next(remote: Remote, path: str, number: int, what: str) -> None:
        text = str(number).encode()
        try:
            fd = remote.call(NR["open"], remote.string(path), os.O_WRONLY)
            remote.call(NR["write"], fd, remote.put(text), len(text))
            remote.call(NR["close"], fd)
        except OSError as error:
            raise RestoreError(what, f"its id cannot be chosen, {path}: {error.strerror}") from None

    def _regions_of(self, identifier: int) -> Iterator[Region]:
        for process in self._snapshot.processes:
            for region in process.regions:
                if region.has_file and region.name.startswith(_SYSV) and region.inode == identifier:
                    yield region

    def fill(self, root: Skeleton) -> None:
        """The content of the segments. Raises RestoreError, DamagedImage."""
        for identifier in self.segments:
            address = 0
            done: set[tuple[int, int, bool]] = set()
            for process in self._snapshot.processes:
                memory = process.memory
                assert isinstance(memory, ImageMemory)
                contents = {(file.device, file.inode): file.sha256 for file in process.mapped}
                for region in process.regions:
                    # What is attached for reading only may be in the image as a file, or in the region where it is written to.
                    sha256 = contents.get((region.device, region.inode))
                    place = region.offset, region.end - region.start, sha256 is None
                    if not self.attaches(region) or region.inode != identifier or place in done:
                        continue
                    done.add(place)
                    if not address:
                        address = root.main.call(NR["shmat"], identifier, 0, 0)
                    if sha256 is not None:
                        self._copy_file(root, memory.files, sha256, region, address)
                    self._copy(root, memory, region, address + region.offset - region.start)
            for part in select(self._section, SegmentData):
                if part.segment == identifier:
                    if not 0 <= part.offset <= part.offset + len(part.data) <= self.segments[identifier].size:
                        raise HostileImage(f"shared memory {identifier}", "content beyond its end")
                    address = address or root.main.call(NR["shmat"], identifier, 0, 0)
                    os.pwrite(root.memory, part.data, address + part.offset)
            if address:
                root.main.call(NR["shmdt"], address)

    def _copy(self, root: Skeleton, memory: ImageMemory, region: Region, shift: int) -> None:
        for start, data in own_runs(memory, region):
            try:
                os.pwrite(root.memory, data, start + shift)
            except OSError as error:
                raise RestoreError(f"shared memory {region.inode}", str(error.strerror)) from None

    @staticmethod
    def _copy_file(root: Skeleton, files: FileSource, sha256: str, region: Region, address: int) -> None:
        end = min(files.size(sha256) or 0, region.offset + region.end - region.start)
        for offset in range(region.offset, end, _MOST):
            data = files.read(sha256, offset, min(_MOST, end - offset))
            try:
                os.pwrite(root.memory, data, address + offset)
            except OSError as error:
                raise RestoreError(f"shared memory {region.inode}", str(error.strerror)) from None

    def attaches(self, region: Region) -> bool:
        """Whether a region is one of a segment that is made."""
        return region.has_file and region.name.startswith(_SYSV) and region.inode in self.segments

    def attach(self, skeleton: Skeleton, regions: Sequence[Region]) -> None:
        """Before everything else is mapped: a segment is attached as a whole, and what is not mapped of it is unmapped. Raises
        RestoreError."""
        places: dict[tuple[int, int], list[Region]] = {}
        for region in regions:
            if self.attaches(region):
                places.setdefault((region.inode, region.start - region.offset), []).append(region)
        calls: list[Call] = []
        for (identifier, base), parts in places.items():
            size = -(-self.segments[identifier].size // PAGE_SIZE) * PAGE_SIZE
            if base <= 0 or any(part.end > base + size for part in parts):
                raise HostileImage(f"process {skeleton.pid} shared memory {identifier}", "a region reaches beyond it")
            flags = sysvipc.SHM_EXEC if any("x" in part.perms for part in parts) else 0
            if not any("mw" in part.flags or "w" in part.perms for part in parts):
                flags |= sysvipc.SHM_RDONLY
            calls.append((NR["shmat"], (identifier, base, flags)))
            position = base
            for part in sorted(parts, key=lambda part: part.start):
                calls.append((NR["munmap"], (position, part.start - position)))
                calls.append((NR["mprotect"], (part.start, part.end - part.start, mman.protection(part.perms))))
                position = part.end
            calls.append((NR["munmap"], (position, base + size - position)))
        calls = [(number, args) for number, args in calls if number != NR["munmap"] or args[1]]
        skeleton.main.all(calls, f"process {skeleton.pid} shared memory")

    def finish(self, root: Skeleton) -> None:
        """When all processes have attached what they had: segments that were removed already go with their last user."""
        calls = [
            (NR["shmctl"], (segment.id, sysvipc.IPC_RMID, 0))
            for segment in self.segments.values()
            if segment.mode & sysvipc.SHM_DEST
        ]
        root.main.all(calls, "shared memory")
        for segment in self.segments.values():
            if segment.mode & sysvipc.SHM_LOCKED:
                (result,) = root.main.batch([(NR["shmctl"], (segment.id, sysvipc.SHM_LOCK, 0))])
                if failed(result):
                    self._notes.append(f"System V shared memory {segment.id} is not locked: {os.strerror(-result)}")
