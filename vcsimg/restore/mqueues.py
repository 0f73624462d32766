"""POSIX message queues, in an IPC namespace of their own: made by the root process, and filled by us."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.sections.files import File, MessageQueue, QueueMessage, QueueWatch
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.kernel import mqueue, pidfd
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.context import Context
from vcsimg.restore.paths import make_regular
from vcsimg.restore.remote import Remote, words

_KEPT = os.O_ACCMODE | os.O_NONBLOCK
_SIGEVENT = struct.Struct("<Qii")  # struct sigevent: value, signal, notification
_SIGEVENT_SIZE = 64
_LIMITS = "/proc/sys/fs/mqueue/"


def needed(snapshot: Snapshot) -> bool:
    """Whether the processes have message queues."""
    return any(select(process.section("files"), MessageQueue) for process in snapshot.processes)


def make_regular_or_queue(context: Context, process: Process, file: File) -> int:
    """An open file of type regular: a message queue looks like one. Raises RestoreError, HostileImage, OSError."""
    for queue in select(process.section("files"), MessageQueue):
        if queue.fd == file.fd:
            return _make(context, process, file, queue)
    return make_regular(context, process, file)


def _make(context: Context, process: Process, file: File, queue: MessageQueue) -> int:
    what = f"process {process.pid} fd {file.fd} (message queue {file.path})"
    if context.options.host_pids:
        raise RestoreError(what, "message queues come back only in namespaces of their own")
    key = (file.device, file.inode)
    own = context.queues.get(key)
    if own is None:
        own = context.queues[key] = context.own(_create(context, file, queue, what))
        for message in select(process.section("files"), QueueMessage):
            if message.fd == file.fd:
                mqueue.send(own, message.data, message.priority)
    return os.open(f"/proc/self/fd/{own}", file.flags & _KEPT | os.O_CLOEXEC)


def restore_watches(context: Context) -> None:
    """When all processes have their descriptors: who is told of messages that come. Raises RestoreError."""
    for process in context.snapshot.processes:
        for watch in select(process.section("files"), QueueWatch):
            remote = context.skeletons[process.pid].main
            if watch.process != process.pid:
                continue  # said by that process, too, if it has the queue open
            how = mqueue.SIGEV_SIGNAL if watch.signal else mqueue.SIGEV_NONE
            event = remote.put(_SIGEVENT.pack(0, watch.signal, how).ljust(_SIGEVENT_SIZE, b"\0"))
            remote.all([(NR["mq_notify"], (watch.fd, event))], f"process {process.pid} fd {watch.fd} (message queue)")
            remote.clear()


def _raise_limit(remote: Remote, path: str, value: int) -> None:
    """Of their IPC namespace, if it is lower and may be raised; else mq_open(3) will say so."""
    with suppress(OSError):
        fd = remote.call(NR["open"], remote.string(path), os.O_RDWR)
        room = remote.room(32)
        length = remote.call(NR["read"], fd, room, 32)
        if int(remote.read(room, length)) < value:
            text = str(value).encode()
            remote.call(NR["pwrite64"], fd, remote.put(text), len(text), 0)
        remote.call(NR["close"], fd)


def _create(context: Context, file: File, queue: MessageQueue, what: str) -> int:
    name = file.path.removeprefix("/")
    if not name or "/" in name or "\0" in name:
        raise HostileImage(what, "that is no name of a message queue")
    skeleton = context.skeletons[context.snapshot.processes[0].pid]
    remote = skeleton.main
    for limit, value in (("msg_max", queue.maximum), ("msgsize_max", queue.message_size)):
        _raise_limit(remote, _LIMITS + limit, value)
    attributes = remote.put(words((0, queue.maximum, queue.message_size, 0, 0, 0, 0, 0)))
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NONBLOCK
    (theirs,) = remote.all([(NR["mq_open"], (remote.string(name), flags, file.mode & 0o777, attributes))], what)
    descriptor = pidfd.open(skeleton.tid)
    try:
        own = pidfd.getfd(descriptor, theirs)
    finally:
        os.close(descriptor)
        remote.all([(NR["close"], (theirs,))], what)
    os.fchmod(own, file.mode & 0o777)
    if file.deleted:
        remote.all([(NR["mq_unlink"], (remote.string(name),))], what)
    remote.clear()
    return own
