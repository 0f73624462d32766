"""TCP connections to the outside that go on where they were (TCP_REPAIR, CAP_NET_ADMIN): the other side notices nothing.

They stay in repair mode, in which closing them is silent, and deaf behind a filter, until the processes are about to run: so a restore that fails
half way tells the other side nothing, and what it sends meanwhile it sends again.
"""

from __future__ import annotations

import errno
import os
import socket
from functools import partial

from vcsimg.errors import RestoreError
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.kernel import tcp
from vcsimg.kernel.calls import call
from vcsimg.kernel.sockets import NOTHING_PASSES, Handle, attach_filter, detach_filter
from vcsimg.kernel.syscalls import NR
from vcsimg.restore import addresses
from vcsimg.restore.context import Context
from vcsimg.restore.socket_options import options, set_options

_ESTABLISHED = 1
_ROOM = 64 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_OPTION = "--tcp reset"


def make_kept(context: Context, process: Process, found: items.Socket, what: str) -> int:
    """A connected socket, silent and deaf until the processes run. Raises RestoreError, OSError."""
    what = f"{what}: its connection to {found.peer}"
    connection = _captured(context, process, found, what)
    fd = context.own(call(NR["socket"], found.family, found.type | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, found.protocol))
    handle = Handle(fd)
    try:
        set_options(process, fd, found, first=True)  # before: repair mode lets it have an address that others use
        try:
            tcp.begin_repair(handle)
        except PermissionError:
            raise RestoreError(what, "going on with it takes CAP_NET_ADMIN", option=_OPTION) from None
        attach_filter(handle, NOTHING_PASSES)
        _connect(context, handle, process, found, connection, what)
    except OSError as error:
        raise RestoreError(what, f"it cannot be made again: {error.strerror}", option=_OPTION) from None
    context.before_they_run.append(partial(_go_on, handle, process, found, connection, what))
    context.kept.add(found.inode)
    return os.dup(fd)


def _captured(context: Context, process: Process, found: items.Socket, what: str) -> tcp.Connection:
    if found.state != _ESTABLISHED:
        raise RestoreError(what, "one side has ended its part of it: such a connection cannot be gone on with", option=_OPTION)
    record = next((one for one in select(process.section("sockets"), items.Tcp) if one.fd == found.fd), None)
    if record is None or not found.local_raw or not found.peer_raw:
        raise RestoreError(what, "its state is not in the capture: that takes CAP_NET_ADMIN when it is captured", option=_OPTION)
    if tcp.counts_microseconds(record.options):
        raise RestoreError(what, "its timestamps count microseconds, which cannot be set", option=_OPTION)
    if not 0 <= record.unsent <= len(record.sending) or context.snapshot.facts is None:
        raise RestoreError(what, "its state is not in the capture", option=_OPTION)
    return tcp.Connection(
        record.send_sequence, record.receive_sequence, record.sending, record.unsent, record.options, record.mss,
        record.send_scale, record.receive_scale, record.timestamp, record.window,
    )  # fmt: skip


def _connect(
    context: Context, handle: Handle, process: Process, found: items.Socket, connection: tcp.Connection, what: str
) -> None:
    assert found.local_raw is not None
    assert found.peer_raw is not None
    assert context.snapshot.facts is not None
    waiting = [message for message in select(process.section("sockets"), items.Message) if message.fd == found.fd]
    if any(message.urgent for message in waiting):
        raise RestoreError(what, "urgent data waits in it (MSG_OOB), which cannot be put back", option=_OPTION)
    received = [message.data for message in waiting]
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        handle.set(socket.SOL_SOCKET, option, _ROOM)
    tcp.begin_rebuilding(handle, connection, sum(map(len, received)))
    try:
        addresses.bind(handle.fd, found.local_raw)
    except OSError as error:
        reason = "is not one of this machine" if error.errno == errno.EADDRNOTAVAIL else f"cannot be had: {error.strerror}"
        raise RestoreError(what, f"its own address {found.local} {reason}", option=_OPTION) from None
    try:
        addresses.connect(handle.fd, found.peer_raw)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        reason = f"there is one from {found.local} already: the captured process lives, or its connection is ending still"
        raise RestoreError(what, reason, option=_OPTION) from None
    captured = context.snapshot.facts.monotonic
    tcp.rebuild(handle, connection, received, tcp.timestamps_at(connection, captured))


def _go_on(handle: Handle, process: Process, found: items.Socket, connection: tcp.Connection, what: str) -> None:
    """It is as any other now, and hears what the other side sends. Raises RestoreError."""
    try:
        detach_filter(handle)
        tcp.end_repair(handle, int(options(process, found).get("so_reuseaddr", "0")), probe=True)
        if connection.unsent:
            handle.send_all(connection.sending[-connection.unsent :])
    except OSError as error:
        raise RestoreError(what, f"it cannot go on: {error.strerror}", option=_OPTION) from None
    set_options(process, handle.fd, found, first=False)
