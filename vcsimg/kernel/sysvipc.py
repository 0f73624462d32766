"""System V IPC: sysvipc(7). Numbers, what /proc/sysvipc says, and what can be asked without changing anything."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from functools import cache

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET, _IPC_STAT = 0, 1, 2
SHM_RDONLY, SHM_EXEC, SHM_HUGETLB = 0o10000, 0o100000, 0o4000
SHM_DEST = 0o1000
"""In the mode: it goes with its last user."""
SHM_LOCKED, SHM_LOCK = 0o2000, 11
"""In the mode; and the command for shmctl(2)."""
SETALL = 17
_GETPID, _GETALL = 11, 13
_MSG_COPY = 0o40000
_PERM = struct.Struct("<5II24x")
"""struct ipc64_perm (asm-generic/ipcbuf.h): key, uid, gid, cuid, cgid, mode."""
_QBYTES = 88
_DS_SIZE = 128
_LONG = struct.Struct("<q")
NEXT_ID = {"shm": "/proc/sys/kernel/shm_next_id", "sem": "/proc/sys/kernel/sem_next_id", "msg": "/proc/sys/kernel/msg_next_id"}
"""The id of the next object, Documentation/admin-guide/sysctl/kernel.rst (CONFIG_CHECKPOINT_RESTORE)."""


@dataclass(frozen=True, slots=True)
class Object:
    """A line of /proc/sysvipc/shm, sem or msg: numbers by the names in its first line."""

    key: int
    id: int
    values: dict[str, int]


@cache
def _table(which: str) -> int:
    """A descriptor of /proc/sysvipc/WHICH; it stays with the IPC namespace that we had when it was opened. Raises OSError."""
    return os.open(f"/proc/sysvipc/{which}", os.O_RDONLY | os.O_CLOEXEC)


def any_objects() -> bool:
    """Whether there are any in our IPC namespace, at the price of three system calls."""
    for which in ("shm", "sem", "msg"):
        try:
            if os.pread(_table(which), 4096, 0).count(b"\n") > 1:
                return True
        except OSError:
            continue  # a kernel without System V IPC
    return False


def objects(which: str) -> list[Object]:
    """All of our IPC namespace; `which`: shm, sem or msg. Empty where there is no System V IPC."""
    try:
        with open(f"/proc/sysvipc/{which}", "rb", buffering=0) as file:
            content = file.readall()
    except OSError:
        return []
    if content.count(b"\n") < 2:
        return []  # the names alone
    names, *lines = (line.split() for line in content.decode().splitlines())
    found = []
    for words in lines:
        values = {name: int(word, 8 if name == "perms" else 10) for name, word in zip(names, words, strict=False)}
        found.append(Object(values["key"], values[f"{which}id" if which != "msg" else "msqid"], values))
    return found


def semaphores(identifier: int, count: int) -> tuple[int, ...]:
    """Their values. Raises OSError."""
    buffer = (ctypes.c_uint16 * count)()
    call(NR["semctl"], identifier, 0, _GETALL, ctypes.addressof(buffer))
    return tuple(buffer)


def last_users(identifier: int, count: int) -> set[int]:
    """The processes that last changed each semaphore. Raises OSError."""
    return {call(NR["semctl"], identifier, number, _GETPID) for number in range(count)}


def messages(identifier: int, size: int) -> list[tuple[int, bytes]]:
    """Type and text of all that wait in a queue, which keeps them; `size`: at least that of the largest. Raises OSError (ENOSYS without
    CONFIG_CHECKPOINT_RESTORE)."""
    buffer = ctypes.create_string_buffer(_LONG.size + max(size, 1))
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            length = call(NR["msgrcv"], identifier, ctypes.addressof(buffer), max(size, 1), len(found), _MSG_COPY | IPC_NOWAIT)
        except OSError as error:
            if error.errno == errno.ENOMSG:
                return found
            raise
        found.append((_LONG.unpack_from(buffer)[0], buffer.raw[_LONG.size : _LONG.size + length]))


def content(identifier: int, size: int) -> bytes:
    """Of a segment. It is attached for that, so its last user is us then. Raises OSError."""
    address = call(NR["shmat"], identifier, 0, SHM_RDONLY)
    try:
        return ctypes.string_at(address, size)
    finally:
        call(NR["shmdt"], address)


def description(uid: int, gid: int, mode: int, qbytes: int = 0) -> bytes:
    """struct shmid64_ds, semid64_ds or msqid64_ds for IPC_SET."""
    data = bytearray(_PERM.pack(0, uid, gid, 0, 0, mode & 0o777).ljust(_DS_SIZE, b"\0"))
    struct.pack_into("<Q", data, _QBYTES, qbytes)
    return bytes(data)


def limit(identifier: int) -> int | None:
    """The most bytes in a message queue; None when it may not be asked."""
    buffer = ctypes.create_string_buffer(_DS_SIZE)
    try:
        call(NR["msgctl"], identifier, _IPC_STAT, ctypes.addressof(buffer))
    except OSError:
        return None
    found: int = struct.unpack_from("<Q", buffer, _QBYTES)[0]
    return found


def message(kind: int, text: bytes) -> bytes:
    """struct msgbuf."""
    return _LONG.pack(kind) + text
