"""Whoever leads the session of the root process, when that was founded outside of the image: a shell, mostly. Runs in the space.

It is the parent of the root process, too, as shells are, so that the groups of its session are not orphaned: only then does Ctrl-Z stop them
(setpgid(2), credentials(7)). It tells vcsimg when the root process stops or ends, and ends with it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from contextlib import suppress
from typing import Any, NoReturn

from vcsimg.kernel import prctl_set, terminal
from vcsimg.kernel.calls import call
from vcsimg.kernel.clone import clone
from vcsimg.kernel.syscalls import NR

_REPLY = 4096


def make(control: socket.socket, root: int, leader: int, path: str | None) -> dict[str, Any]:
    """Make a leader with this pid (if that is free), with a terminal (if there is one), and as its child the root process. Its and the leader's
    pid as we see them, or `errno`. The root process waits for signals for ever."""
    reading, writing = os.pipe()
    try:
        try:
            child = clone(0, signal.SIGCHLD, [leader] if leader > 0 else [])
        except OSError as error:
            if error.errno != errno.EEXIST:
                return {"errno": error.errno}
            child = clone(0, signal.SIGCHLD)
        if child == 0:
            _lead(control, root, path, writing)
        os.close(writing)
        writing = -1
        data = os.read(reading, _REPLY)
        if not data:
            return {"errno": errno.ECHILD}
        return {**json.loads(data), "leader": child}
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def _lead(control: socket.socket, root: int, path: str | None, writing: int) -> NoReturn:
    try:
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        if path is not None:
            fcntl.ioctl(os.open(path, os.O_RDWR | os.O_NOCTTY), terminal.TIOCSCTTY, 0)
        child = clone(0, signal.SIGCHLD, [root])
        if child == 0:
            while True:
                signal.pause()
        os.write(writing, json.dumps({"root": child}).encode())
        _attend(control, child)
    except OSError as error:
        os.write(writing, json.dumps({"errno": error.errno}).encode())
    finally:
        os._exit(1)


def _attend(control: socket.socket, root: int) -> NoReturn:
    for number in range(1, signal.NSIG):
        if number != signal.SIGCHLD:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
    close_all_but(control.fileno())
    with suppress(OSError):
        os.chdir("/")
    while True:
        _, status = os.waitpid(root, os.WUNTRACED)
        message = {"stopped": os.WSTOPSIG(status)} if os.WIFSTOPPED(status) else {"status": status}
        with suppress(OSError):
            control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
        if not os.WIFSTOPPED(status):
            os._exit(0)


def close_all_but(*keep: int) -> None:
    """Standard input, output and error lead nowhere then."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        if fd not in keep:
            os.dup2(nowhere, fd)
    position = 3
    for fd in sorted(keep):
        os.closerange(position, fd)
        position = max(3, fd + 1)
    os.closerange(position, 1 << 20)
