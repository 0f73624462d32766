"""Descriptors of the kernel's anonymous files: eventfd, timerfd, signalfd, epoll, inotify, pidfd."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import time

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.files import (
    Duplicate,
    EpollPolling,
    EpollQuiet,
    EpollWatch,
    Eventfd,
    File,
    InotifyWatch,
    Pidfd,
    Signalfd,
)
from vcsimg.image.sections.item import select
from vcsimg.image.sections.timers import TimerDescriptor
from vcsimg.image.snapshot import Process
from vcsimg.kernel import epoll, pidfd, procfs
from vcsimg.kernel.calls import call
from vcsimg.kernel.clone import clone
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.context import Context
from vcsimg.restore.remote import Call, failed
from vcsimg.restore.skeleton import Skeleton

_BILLION = 1_000_000_000
_EFD_SEMAPHORE = 1
_TFD_TIMER_ABSTIME = 1
_TFD_SETTIME_FLAGS = 3
_TFD_IOC_SET_TICKS = 0x40085400
_EPOLL_CTL_ADD = 1
_EVENTS = 1024
_MASK_ONLY = 0x00003FFF | 0x07000000 | 0x80000000 | 0x2000
_WATCHES = 1 << 16


def make_eventfd(context: Context, process: Process, file: File) -> int:
    for found in select(process.section("files"), Eventfd):
        if found.fd == file.fd:
            fd = os.eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK | (_EFD_SEMAPHORE if found.semaphore else 0))
            if found.count:
                os.write(fd, struct.pack("<Q", found.count))
            return fd
    raise RestoreError(f"process {process.pid} fd {file.fd}", "its count was not captured")


def make_timerfd(context: Context, process: Process, file: File) -> int:
    """It runs from now on with the time that it had left."""
    for found in select(process.section("timers"), TimerDescriptor):
        if found.fd == file.fd:
            fd = call(NR["timerfd_create"], found.clock, os.O_CLOEXEC | os.O_NONBLOCK)
            if found.remaining or found.interval:
                first = found.remaining or 1
                if found.flags & _TFD_TIMER_ABSTIME:
                    first += time.clock_gettime_ns(found.clock)
                times = struct.pack("<qqqq", *divmod(found.interval, _BILLION), *divmod(first, _BILLION))
                buffer = ctypes.create_string_buffer(times)
                call(NR["timerfd_settime"], fd, found.flags & _TFD_SETTIME_FLAGS, ctypes.addressof(buffer), 0)
            if found.ticks:
                _set_ticks(context, process, fd, found)
            return fd
    raise RestoreError(f"process {process.pid} fd {file.fd}", "its time was not captured")


def _set_ticks(context: Context, process: Process, fd: int, found: TimerDescriptor) -> None:
    """TFD_IOC_SET_TICKS needs CONFIG_CHECKPOINT_RESTORE."""
    try:
        fcntl.ioctl(fd, _TFD_IOC_SET_TICKS, struct.pack("<Q", found.ticks))
    except OSError as error:
        raise RestoreError(
            f"process {process.pid} fd {found.fd}", f"its {found.ticks} expirations cannot be set: {error.strerror}"
        ) from None


def make_signalfd(context: Context, process: Process, file: File) -> int:
    for found in select(process.section("files"), Signalfd):
        if found.fd == file.fd:
            mask = ctypes.c_uint64(found.mask)
            return call(NR["signalfd4"], -1 & 0xFFFFFFFF, ctypes.addressof(mask), 8, os.O_CLOEXEC | os.O_NONBLOCK)
    raise RestoreError(f"process {process.pid} fd {file.fd}", "its mask was not captured")


def make_epoll(context: Context, process: Process, file: File) -> int:
    """Empty: what it watches is added by restore_watches()."""
    fd = call(NR["epoll_create1"], os.O_CLOEXEC)
    for wanted in select(process.section("files"), EpollPolling):
        if wanted.fd == file.fd:
            if not (0 <= wanted.microseconds < 1 << 32 and 0 <= wanted.budget < 1 << 16):
                raise HostileImage(f"process {process.pid} fd {file.fd}", "its busy polling is absurd")
            try:
                epoll.set_polling(fd, wanted.microseconds, wanted.budget, wanted.prefer)
            except OSError as error:
                context.notes.append(f"process {process.pid} fd {file.fd}: its busy polling cannot be set: {error.strerror}")
    return fd


def restore_watches(skeleton: Skeleton, shared: frozenset[int]) -> None:
    """After all descriptors are in place: an entry belongs to the number under which it was added. `shared`: epoll descriptors whose entries
    an earlier process has added. Raises RestoreError."""
    remote = skeleton.main
    calls: list[Call] = []
    for watch in select(skeleton.process.section("files"), EpollWatch):
        if watch.fd in shared:
            continue
        if watch.current is None:
            raise RestoreError(
                f"process {skeleton.pid} fd {watch.fd}", f"it watches what was descriptor {watch.target}, which is closed"
            )
        event = remote.put(struct.pack("<IQ", watch.events, watch.data))
        add: Call = NR["epoll_ctl"], (watch.fd, _EPOLL_CTL_ADD, watch.target, event)
        if watch.current == watch.target:
            calls.append(add)
        else:
            _add_renumbered(skeleton, watch, add)
    events = remote.room(_EVENTS * 12)
    for quiet in select(skeleton.process.section("files"), EpollQuiet):
        if quiet.fd not in shared:
            calls.append((NR["epoll_wait"], (quiet.fd, events, _EVENTS, 0)))
    remote.all(calls, f"process {skeleton.pid} epoll")
    remote.clear()


def _add_renumbered(skeleton: Skeleton, watch: EpollWatch, add: Call) -> None:
    """An entry under a number that belongs to another file now, or to none: the watched file has it for a moment."""
    remote = skeleton.main
    what = f"process {skeleton.pid} fd {watch.fd}"
    assert watch.current is not None
    (aside,) = remote.batch([(NR["fcntl"], (watch.target, fcntl.F_DUPFD, skeleton.transport + 1))])
    remote.all([(NR["dup3"], (watch.current, watch.target, 0)), add], what)
    if failed(aside):
        remote.all([(NR["close"], (watch.target,))], what)
        return
    section = skeleton.process.section("files")
    entries: list[File | Duplicate] = [*select(section, File), *select(section, Duplicate)]
    cloexec = any(one.fd == watch.target and one.close_on_exec for one in entries)
    remote.all([(NR["dup3"], (aside, watch.target, os.O_CLOEXEC if cloexec else 0)), (NR["close"], (aside,))], what)


def make_inotify(context: Context, process: Process, file: File) -> int:
    """With the watches at their numbers, which count up: those in between are made and taken away."""
    fd = call(NR["inotify_init1"], os.O_CLOEXEC | os.O_NONBLOCK)
    watches = sorted((one for one in select(process.section("files"), InotifyWatch) if one.fd == file.fd), key=lambda one: one.wd)
    last = 0
    for watch in watches:
        what = f"process {process.pid} fd {file.fd} watch {watch.wd}"
        if watch.path is None:
            raise RestoreError(what, "no path to what it watches was found")
        if not last < watch.wd <= _WATCHES:
            raise RestoreError(what, "its number cannot be had")
        path = ctypes.create_string_buffer(os.fsencode(context.root + watch.path))
        while last < watch.wd:
            last += 1
            try:
                wd = call(NR["inotify_add_watch"], fd, ctypes.addressof(path), watch.mask & _MASK_ONLY & 0xFFFFFFFF)
            except OSError as error:
                raise RestoreError(what, f"{watch.path}: {error.strerror}") from None
            if wd != watch.wd:
                call(NR["inotify_rm_watch"], fd, wd)
    _drain(fd)
    return fd


def _drain(fd: int) -> None:
    """Taking a watch away leaves IN_IGNORED behind."""
    try:
        while os.read(fd, 1 << 16):
            pass
    except BlockingIOError:
        return


def make_pidfd(context: Context, process: Process, file: File) -> int:
    for found in select(process.section("files"), Pidfd):
        if found.fd == file.fd:
            if found.pid < 0:
                return _pidfd_of_nobody()
            pid = context.pids.get(found.pid) or _zombie(context, found.pid)
            if pid is None:
                raise RestoreError(f"process {process.pid} fd {file.fd}", f"process {found.pid} is not in the image")
            if file.flags & os.O_EXCL:
                return pidfd.open_thread(pid)
            return os.pidfd_open(pid)
    raise RestoreError(f"process {process.pid} fd {file.fd}", "its pid was not captured")


def _zombie(context: Context, pid: int) -> int | None:
    """Our id of a dead child of a process of the image."""
    for parent in context.pids.values():
        for child in procfs.children(parent):
            inner = procfs.status(child).get("NSpid", "").split()
            if inner and int(inner[-1]) == pid:
                return child
    return None


def _pidfd_of_nobody() -> int:
    """One whose process has ended and was waited for."""
    pid = clone(0, signal.SIGCHLD)
    if pid == 0:
        os._exit(0)
    fd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    return fd
