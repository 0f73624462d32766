"""Section `files`: every descriptor. A record that tells more of one (eventfd, epoll_watch, …) names it by `fd`.

Also section `locks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item, Octal
from vcsimg.image.sections.names import EpollEvents, InotifyEvents, OpenFlags, Seals, SignalNumber


@dataclass(frozen=True, slots=True)
class File(Item, kind="file"):
    """An open file, by the lowest descriptor of this process that refers to it."""

    fd: int
    close_on_exec: bool
    type: str
    path: str
    flags: OpenFlags
    position: int
    mode: Octal
    device: str
    inode: int
    special: str | None
    mount: int | None
    size: int | None
    mtime: int | None
    links: int | None
    deleted: bool
    content: str | None


@dataclass(frozen=True, slots=True)
class Duplicate(Item, kind="duplicate"):
    """Another descriptor of the open file of descriptor `of`: they share offset and flags, but not close_on_exec."""

    fd: int
    of: int
    close_on_exec: bool


@dataclass(frozen=True, slots=True)
class Owner(Item, kind="owner"):
    """Who gets SIGIO, F_GETOWN_EX of fcntl(2): `type` tid, pid or pgrp; signal 0: SIGIO without siginfo."""

    fd: int
    type: str
    id: int
    signal: SignalNumber


@dataclass(frozen=True, slots=True)
class Eventfd(Item, kind="eventfd"):
    fd: int
    count: int
    semaphore: bool | None


@dataclass(frozen=True, slots=True)
class Signalfd(Item, kind="signalfd"):
    fd: int
    mask: Hex


@dataclass(frozen=True, slots=True)
class EpollWatch(Item, kind="epoll_watch"):
    """epoll_ctl(2). `target`: the descriptor as it was when added; it may have been closed or used again since:
    `inode` and `device` say which file is watched, `current` which descriptor refers to it now (absent: none)."""

    fd: int
    target: int
    current: int | None
    events: EpollEvents
    data: Hex
    device: str | None
    inode: int | None


@dataclass(frozen=True, slots=True)
class EpollPolling(Item, kind="epoll_polling"):
    """EPIOCSPARAMS of ioctl_eventpoll(2): microseconds that a wait polls the network device, packets at once, and whether instead of interrupts."""

    fd: int
    microseconds: int
    budget: int
    prefer: bool


@dataclass(frozen=True, slots=True)
class EpollQuiet(Item, kind="epoll_quiet"):
    """Nothing that the epoll descriptor watches was ready, or all that was had been told (EPOLLET)."""

    fd: int


@dataclass(frozen=True, slots=True)
class InotifyWatch(Item, kind="inotify_watch"):
    """inotify(7). `path`: a path that leads to the watched inode; absent when none was found."""

    fd: int
    wd: int
    device: str
    inode: int
    mask: InotifyEvents
    handle_type: int | None
    handle: bytes | None
    path: str | None


@dataclass(frozen=True, slots=True)
class Pidfd(Item, kind="pidfd"):
    """pidfd_open(2): pid as vcsimg sees it, -1 when the process has ended; `namespace_pids`: in each of its pid namespaces."""

    fd: int
    pid: int
    namespace_pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sealed(Item, kind="seals"):
    """F_GET_SEALS of fcntl(2), for memory files."""

    fd: int
    seals: Seals


@dataclass(frozen=True, slots=True)
class MessageQueue(Item, kind="message_queue"):
    """mq_getattr(3): the most messages that it holds, the most bytes of one, and how many wait."""

    fd: int
    maximum: int
    message_size: int
    messages: int


@dataclass(frozen=True, slots=True)
class QueueWatch(Item, kind="queue_watch"):
    """Who is told when a message comes into an empty queue (mq_notify(3)): the process, by a signal, or not at all (0)."""

    fd: int
    process: int
    signal: SignalNumber


@dataclass(frozen=True, slots=True)
class QueueMessage(Item, kind="queue_message"):
    """A message that waits in a message queue: the highest priority first, then the oldest."""

    fd: int
    priority: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Lock(Item, kind="lock"):
    """A lock held through a descriptor, on bytes [start, end); end absent: to the end of the file.

    `type`: flock, posix, ofd or lease; `access`: read, write or none.
    """

    fd: int
    type: str
    access: str
    start: int
    end: int | None
