"""Descriptors of ours, handed over to a skeleton: SCM_RIGHTS of unix(7) through a socket whose other end every skeleton has."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from vcsimg.errors import RestoreError
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import failed, words
from vcsimg.restore.skeleton import Skeleton

_BATCH = 200
_HEADER = 16
_NOFILE = 7
_SPARE = 2 * _BATCH + 8
_F_DUPFD = 0
_MSG_CMSG_CLOEXEC = 0x40000000
_LARGEST = (1 << 32) - 1


def settle(skeleton: Skeleton, inode: int, above: int) -> None:
    """Close everything in a skeleton but the transport socket (by its inode), and move that to descriptor `above`."""
    own = None
    for name in os.listdir(f"/proc/{skeleton.tid}/fd"):
        if os.readlink(f"/proc/{skeleton.tid}/fd/{name}") == f"socket:[{inode}]":
            own = int(name)
    if own is None:
        raise RestoreError("descriptors", "the skeleton has lost its socket")
    remote = skeleton.main
    old = remote.room(16)
    remote.all([(NR["prlimit64"], (0, _NOFILE, 0, old))], "descriptors")
    soft, hard = struct.unpack("<QQ", remote.read(old, 16))
    if soft < above + _SPARE:
        limit = remote.put(words((min(hard, above + _SPARE), hard)))
        remote.all([(NR["prlimit64"], (0, _NOFILE, limit, 0))], "descriptors")
    if own != above:
        remote.all([(NR["dup3"], (own, above, 0))], "descriptors")
    remote.all(
        [(NR["close_range"], (0, above - 1, 0)), (NR["close_range"], (above + 1, _LARGEST, 0))] if above else [], "descriptors"
    )
    remote.clear()
    skeleton.transport = above


def hand_over(skeleton: Skeleton, sender: socket.socket, fds: Sequence[int]) -> list[int]:
    """Duplicates of our descriptors in the skeleton, at whatever numbers are free."""
    received: list[int] = []
    remote = skeleton.main
    for start in range(0, len(fds), _BATCH):
        part = fds[start : start + _BATCH]
        socket.send_fds(sender, [b"."], list(part))
        remote.clear()
        space = _HEADER + 4 * _BATCH
        byte, control = remote.room(1), remote.room(space)
        vector = remote.put(words((byte, 1)))
        message = remote.put(words((0, 0, vector, 1, control, space, 0)))
        remote.all([(NR["recvmsg"], (skeleton.transport, message, _MSG_CMSG_CLOEXEC))], "descriptors")
        data = remote.read(control, _HEADER + 4 * len(part))
        (length,) = struct.unpack_from("<Q", data)
        if length != _HEADER + 4 * len(part):
            raise RestoreError("descriptors", "the skeleton could not take all of them: too many open files")
        received += struct.unpack_from(f"<{len(part)}i", data, _HEADER)
    remote.clear()
    return received


def place(skeleton: Skeleton, sender: socket.socket, wanted: Sequence[tuple[int, int, bool]]) -> None:
    """Put descriptors of ours at numbers: (ours, number, close_on_exec) each. A descriptor of ours may stand several times."""
    ours = list(dict.fromkeys(own for own, _, _ in wanted))
    remote = skeleton.main
    top = skeleton.transport
    for start in range(0, len(ours), _BATCH):
        part = ours[start : start + _BATCH]
        received = hand_over(skeleton, sender, part)
        # Out of the way first: the numbers that the kernel chose may be wanted for others.
        moved = remote.all([(NR["fcntl"], (fd, _F_DUPFD, top + 1)) for fd in received], "descriptors")
        remote.all([(NR["close"], (fd,)) for fd in received], "descriptors")
        at = dict(zip(part, moved, strict=True))
        calls = [(NR["dup3"], (at[own], number, os.O_CLOEXEC if cloexec else 0)) for own, number, cloexec in wanted if own in at]
        for (_, args), result in zip(calls, remote.batch(calls), strict=True):
            if failed(result):
                raise RestoreError(f"fd {args[1]}", os.strerror(-result))
        remote.all([(NR["close"], (fd,)) for fd in moved], "descriptors")
