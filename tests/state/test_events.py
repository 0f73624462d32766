"""Descriptors that stand for events."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target
from tests.state.reading import every, numbers, one, read_state, still_well, unsaved
from vcsimg.image.sections.files import EpollWatch, Eventfd, InotifyWatch, Pidfd, Signalfd
from vcsimg.image.sections.timers import TimerDescriptor

EPOLLIN, EPOLLONESHOT, EPOLLET, EPOLLERR, EPOLLHUP = 0x1, 1 << 30, 1 << 31, 0x8, 0x10
IN_CREATE, IN_DELETE_SELF = 0x100, 0x400


def test_event_descriptors(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_events", tmp_path)
    event, semaphore, signals, timer, idle, _epoll, _closed, _moved, _notify, _wd, parent = numbers(target)
    state = read_state(target.pid)

    assert one(state, Eventfd, fd=event).count == 90
    assert one(state, Eventfd, fd=semaphore).count == 3
    if one(state, Eventfd, fd=event).semaphore is not None:
        assert not one(state, Eventfd, fd=event).semaphore
        assert one(state, Eventfd, fd=semaphore).semaphore
    assert one(state, Signalfd, fd=signals).mask == 1 << signal.SIGUSR1 - 1 | 1 << signal.SIGRTMIN - 1
    armed = one(state, TimerDescriptor, fd=timer)
    assert (armed.clock, armed.interval) == (1, 7_000_000_005)
    assert 4_000_000_000_000 < armed.remaining <= 5_000_000_000_000
    assert one(state, TimerDescriptor, fd=idle).remaining == 0
    assert one(state, Pidfd, fd=parent).pid == os.getpid()
    still_well(target)


def test_epoll_watches_follow_the_open_file_not_the_number(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_events", tmp_path)
    event, _, _, _, _, epoll, closed, moved, *_ = numbers(target)
    state = read_state(target.pid)

    first, second = one(state, EpollWatch, target=event), one(state, EpollWatch, target=closed)
    assert (first.fd, first.current, first.data) == (epoll, event, 0x1234567890)
    assert first.events == EPOLLIN | EPOLLET | EPOLLERR | EPOLLHUP
    assert (second.current, second.data, second.events & EPOLLONESHOT) == (moved, 2, EPOLLONESHOT)
    still_well(target)


def test_inotify_watches_get_their_paths(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_events", tmp_path)
    *_, notify, wd, _ = numbers(target)
    state = read_state(target.pid)

    watch = one(state, InotifyWatch)
    assert (watch.fd, watch.wd, watch.mask) == (notify, wd, IN_CREATE | IN_DELETE_SELF)
    assert (watch.inode, watch.path) == (tmp_path.stat().st_ino, str(tmp_path))
    assert f"fd {notify}" not in unsaved(state)
    still_well(target)


def test_events_that_inotify_has_not_delivered_are_named(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_events", tmp_path)
    *_, notify, _, _ = numbers(target)
    (tmp_path / "new").touch()
    state = read_state(target.pid)

    assert "events that were not read yet" in unsaved(state)[f"fd {notify}"]
    assert every(state, InotifyWatch)
