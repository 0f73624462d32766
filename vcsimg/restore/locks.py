"""File locks: flock(2), and those of fcntl(2)."""

from __future__ import annotations

import fcntl
import os
import struct

from vcsimg.image.sections.files import File, Lock, Owner
from vcsimg.image.sections.item import select
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import Call
from vcsimg.restore.skeleton import Skeleton

_ACCESS = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK, "none": fcntl.F_UNLCK}
_FLOCK = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX, "none": fcntl.LOCK_UN}
_F_OFD_SETLK = 37
_F_SETLEASE = 1024
_F_SETOWN_EX = 15
_F_SETSIG = 10
_O_PATH = 0o10000000
_SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME | os.O_ASYNC
_OWNERS = {"tid": 0, "pid": 1, "pgrp": 2}


def restore_locks(skeleton: Skeleton) -> None:
    """After the descriptors are in place; POSIX locks belong to the process itself. Raises RestoreError: somebody else has it now."""
    remote = skeleton.main
    for lock in select(skeleton.process.section("locks"), Lock):
        call: Call
        if lock.type == "flock":
            call = NR["flock"], (lock.fd, _FLOCK.get(lock.access, 0) | fcntl.LOCK_NB)
        elif lock.type == "lease":
            call = NR["fcntl"], (lock.fd, _F_SETLEASE, _ACCESS.get(lock.access, 0))
        else:
            length = 0 if lock.end is None else lock.end - lock.start
            content = struct.pack("<hhiqqi", _ACCESS.get(lock.access, 0), 0, 0, lock.start, length, 0).ljust(32, b"\0")
            command = _F_OFD_SETLK if lock.type == "ofd" else fcntl.F_SETLK
            call = NR["fcntl"], (lock.fd, command, remote.put(content))
        remote.all([call], f"process {skeleton.pid} fd {lock.fd} {lock.type} lock")
    calls: list[Call] = []
    for owner in select(skeleton.process.section("files"), Owner):
        if owner.type in _OWNERS:
            calls.append((NR["fcntl"], (owner.fd, _F_SETOWN_EX, remote.put(struct.pack("<ii", _OWNERS[owner.type], owner.id)))))
            if owner.signal:
                calls.append((NR["fcntl"], (owner.fd, _F_SETSIG, owner.signal)))
    for file in select(skeleton.process.section("files"), File):
        if file.flags & os.O_ASYNC and not file.flags & _O_PATH:
            calls.append((NR["fcntl"], (file.fd, fcntl.F_SETFL, file.flags & _SETTABLE)))
    remote.all(calls, f"process {skeleton.pid} SIGIO owner")
    remote.clear()
