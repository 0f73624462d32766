"""Mappings of a process and their content."""

from __future__ import annotations

import os
import stat
from socket import socket

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.region import Region
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Guard
from vcsimg.image.snapshot import MappedFile, Process
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel import mman
from vcsimg.kernel.prctl_set import SET_VMA, SET_VMA_ANON_NAME
from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import WORD
from vcsimg.restore.aio import is_ring, make_rings
from vcsimg.restore.mapped import MappedFiles
from vcsimg.restore.objects import Key, Objects, copy
from vcsimg.restore.remote import Call, failed
from vcsimg.restore.runs import own_runs
from vcsimg.restore.skeleton import TASK_SIZE, Skeleton
from vcsimg.restore.sysv import SharedObjects
from vcsimg.restore.transport import hand_over

_ADVICE = {
    "sr": mman.MADV_SEQUENTIAL, "rr": mman.MADV_RANDOM, "dc": mman.MADV_DONTFORK, "dd": mman.MADV_DONTDUMP,
    "mg": mman.MADV_MERGEABLE, "hg": mman.MADV_HUGEPAGE, "nh": mman.MADV_NOHUGEPAGE, "wf": mman.MADV_WIPEONFORK,
}  # fmt: skip
"""VmFlags of proc_pid_smaps(5) and the madvise(2) that sets each."""

_OPTIONAL = frozenset(("mg", "hg", "nh"))
"""Advice that a kernel may not know, without effect on what the program computes."""

_ANON_NAME = "[anon:"
_SHARED_NAME = "[anon_shmem:"
_ANONYMOUS = ("/dev/zero (deleted)", "[anon_shmem")
_MEMFD = "/memfd:"
_SECRET = "/secretmem"
_SYSV = "/SYSV"
_HUGE = "/anon_hugepage"
_DELETED = " (deleted)"


def key_of(region: Region) -> Key:
    return region.device, region.inode


def is_object(region: Region) -> bool:
    """Shared memory that lives in no file system that a path leads into."""
    return region.has_file and (
        region.name.startswith((*_ANONYMOUS, _MEMFD, _SYSV)) or (region.shared and region.name.endswith(_DELETED))
    )


def _was_writable(region: Region) -> bool:
    """Private memory that counts as committed though nobody may write to it: mprotect(2) has taken that away when it had content. It is made so
    again, as otherwise it would not become one region with its neighbours later (mm/vma.c, anon_vma_compatible)."""
    private = not (region.shared or region.special or region.start >= TASK_SIZE)
    return private and "ac" in region.flags and not region.writable and "ht" not in region.flags


class MemoryRestorer:
    """Restores the mappings of one process after the other."""

    def __init__(self, sender: socket, objects: Objects, files: MappedFiles, shared: SharedObjects, notes: list[str]) -> None:
        self._sender = sender
        self._shared_objects = shared
        self._objects = objects
        self._files = files
        self._notes = notes
        self._filled: set[tuple[Key, int, int]] = set()

    def map(self, skeleton: Skeleton) -> None:
        """Make all mappings, empty or over their files. Raises RestoreError."""
        process = skeleton.process
        memory = process.memory
        assert isinstance(memory, ImageMemory)
        known = {(file.device, file.inode): file for file in process.mapped}
        regions = [region for region in process.regions if not region.special and region.start < TASK_SIZE]
        self._shared_objects.attach(skeleton, regions)
        make_rings(skeleton, self._notes)
        regions = [region for region in regions if not self._shared_objects.attaches(region) and not is_ring(region)]
        ours: dict[int, int] = {}
        for region in regions:
            fd = self._file_of(process, memory, region, known)
            if fd is not None:
                ours[region.start] = fd
        distinct = list(dict.fromkeys(ours.values()))
        theirs = dict(zip(distinct, hand_over(skeleton, self._sender, distinct), strict=True))
        calls = [self._mapping(region, theirs.get(ours.get(region.start, -1))) for region in regions]
        remote = skeleton.main
        for region, result in zip(regions, remote.batch(calls), strict=True):
            if result != region.start:
                reason = os.strerror(-result) if failed(result) else "another address"
                raise RestoreError(f"process {process.pid} region {region.start:#x}-{region.end:#x} {region.name}", reason)
        remote.all([(NR["close"], (fd,)) for fd in theirs.values()], "descriptors")

    def _file_of(self, process: Process, memory: ImageMemory, region: Region, known: dict[Key, MappedFile]) -> int | None:
        """What a region is mapped from; None: anonymous memory."""
        if region.name.startswith(_SECRET):
            raise RestoreError(
                f"memory at {region.start:#x}", "memfd_secret(2): nobody but the process can read it, so it was not captured"
            )
        if not region.has_file or (region.name.startswith(_HUGE) and not region.shared):
            return None
        if is_object(region):
            return self._shared(process, memory, region, known)
        file = known.get(key_of(region))
        if region.shared and ("mw" in region.flags or region.writable):
            return self._writable(region)
        if file is None:
            return self._device(region)
        return self._files.same_content(file, memory.files)

    def _shared(self, process: Process, memory: ImageMemory, region: Region, known: dict[Key, MappedFile]) -> int:
        key = key_of(region)
        name = region.name.removesuffix(_DELETED)
        name = name.removeprefix(_MEMFD) if name.startswith(_MEMFD) else name.strip("/[]").replace("/", "-")
        file = known.get(key)
        size = file.size if file is not None and file.size > 0 else region.offset + region.end - region.start
        fresh = self._objects.get(key) is None
        fd = self._objects.make(key, name, size)
        if fresh and file is not None and file.sha256 is not None and memory.files.size(file.sha256) is not None:
            copy(file.sha256, memory.files, fd)
        place = key, region.offset, region.end - region.start
        if place not in self._filled:
            self._filled.add(place)
            for start, data in own_runs(memory, region):
                try:
                    os.pwrite(fd, data, region.offset + start - region.start)
                except OSError as error:
                    raise RestoreError(f"shared memory {name}", str(error.strerror)) from None
        return fd

    def _writable(self, region: Region) -> int:
        """A file that the process writes to through memory: the file itself, as it is now."""
        path = self._files.places.get((region.name, region.inode)) or self._files.root + region.name
        try:
            fd = self._files.open(
                path, (os.O_RDWR if "mw" in region.flags else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            )
        except OSError as error:
            raise RestoreError(f"mapped file {region.name}", f"it cannot be opened: {error.strerror}") from None
        self._opened(fd)
        return fd

    def _device(self, region: Region) -> int:
        """A device: only those without state of their own."""
        path = self._files.root + region.name
        try:
            facts = os.stat(path)
        except OSError as error:
            raise RestoreError(f"mapped file {region.name}", str(error.strerror)) from None
        if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(1, 5):
            raise RestoreError(f"mapped file {region.name}", "its content was not captured")
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._opened(fd)
        return fd

    def _opened(self, fd: int) -> None:
        self._files.keep(fd)

    def _mapping(self, region: Region, fd: int | None) -> Call:
        protection = mman.PROT_READ | mman.PROT_WRITE if _was_writable(region) else mman.protection(region.perms)
        kind = mman.MAP_SHARED if region.shared else mman.MAP_DROPPABLE if "dp" in region.flags else mman.MAP_PRIVATE
        flags = mman.MAP_FIXED_NOREPLACE | kind
        if fd is None:
            flags |= mman.MAP_ANONYMOUS
        if "gd" in region.flags:
            flags |= mman.MAP_GROWSDOWN
        if "nr" in region.flags:
            flags |= mman.MAP_NORESERVE
        if "ht" in region.flags and fd is None:
            flags |= mman.MAP_HUGETLB
        offset = region.offset if fd is not None else 0
        size = region.end - region.start
        return NR["mmap"], (region.start, size, protection, flags, WORD - 1 if fd is None else fd, offset)

    def advise(self, skeleton: Skeleton) -> None:
        """Protection, advice, locks and names: after the content, which MADV_WIPEONFORK and the like must not touch."""
        remote = skeleton.main
        calls: list[Call] = [
            (NR["mprotect"], (region.start, region.end - region.start, mman.protection(region.perms)))
            for region in skeleton.process.regions
            if _was_writable(region)
        ]
        optional: list[Call] = []
        for region in skeleton.process.regions:
            if region.special or region.start >= TASK_SIZE:
                continue
            size = region.end - region.start
            for flag in region.flags:
                if flag in _ADVICE and not (flag == "dd" and "io" in region.flags):
                    (optional if flag in _OPTIONAL else calls).append((NR["madvise"], (region.start, size, _ADVICE[flag])))
            if "lo" in region.flags:
                optional.append((NR["mlock2"], (region.start, size, mman.MLOCK_ONFAULT if "lf" in region.flags else 0)))
            for prefix in (_ANON_NAME, _SHARED_NAME):
                if region.name.startswith(prefix):
                    name = remote.put(os.fsencode(region.name.removeprefix(prefix).removesuffix("]")) + b"\0")
                    optional.append((NR["prctl"], (SET_VMA, SET_VMA_ANON_NAME, region.start, size, name)))
        for guard in select(skeleton.process.section("status"), Guard):
            if guard.start % PAGE_SIZE or not guard.start < guard.end <= TASK_SIZE:
                raise HostileImage(f"process {skeleton.pid}", f"a guard at {guard.start:#x}-{guard.end:#x}")
            calls.append((NR["madvise"], (guard.start, guard.end - guard.start, mman.MADV_GUARD_INSTALL)))
        remote.all(calls, f"process {skeleton.pid} memory advice")
        for (number, args), result in zip(optional, remote.batch(optional), strict=True):
            if failed(result) and number == NR["mlock2"]:
                self._notes.append(f"memory at {args[0]:#x} is not locked: {os.strerror(-result)}")
        remote.clear()

    def seal(self, skeleton: Skeleton) -> None:
        """At last: what mseal(2) has sealed cannot be changed any more."""
        sealed = [region for region in skeleton.process.regions if "sl" in region.flags and not region.special]
        calls: list[Call] = [(NR["mseal"], (region.start, region.end - region.start, 0)) for region in sealed]
        for (_, args), result in zip(calls, skeleton.main.batch(calls), strict=True):
            if failed(result):
                self._notes.append(f"memory at {args[0]:#x} is not sealed: {os.strerror(-result)}")
