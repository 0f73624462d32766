"""Controlling terminals and foreground groups."""

from __future__ import annotations

from collections.abc import Collection
from socket import socket

from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Identity
from vcsimg.image.sections.terminals import Control
from vcsimg.image.snapshot import Process
from vcsimg.kernel import terminal
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.ptys import Pty, Ptys
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.transport import hand_over


def control_of(process: Process) -> Control | None:
    """The controlling terminal of a process."""
    return next(iter(select(process.section("terminals"), Control)), None)


class Controls:
    """Gives sessions their terminals. `sender`: the end of the transport that is ours."""

    def __init__(self, ptys: Ptys, sender: socket) -> None:
        self._ptys = ptys
        self._sender = sender

    def take(self, leader: Skeleton) -> None:
        """For one that has just founded a session, and has no children in it yet. Raises RestoreError."""
        control = control_of(leader.process)
        if control is not None:
            self._with(leader, self._ptys.made[control.device], terminal.TIOCSCTTY)

    def drop(self, skeleton: Skeleton, inherited: str | None) -> None:
        """For one whose session has a terminal (`inherited`: its device), when it has given that up."""
        if inherited is not None and control_of(skeleton.process) is None:
            self._with(skeleton, self._ptys.made[inherited], terminal.TIOCNOTTY)

    def foreground(self, skeletons: Collection[Skeleton]) -> None:
        """When all groups are there. Where the foreground group was outside of the image, the root's is it."""
        groups = {identity.group for one in skeletons for identity in select(one.process.section("status"), Identity)}
        done: set[str] = set()
        for skeleton in skeletons:
            control = control_of(skeleton.process)
            if control is None or control.device in done:
                continue
            done.add(control.device)
            group = control.foreground
            if group not in groups:
                # Its own: that of the root in the terminal of the root.
                group = skeleton.main.call(NR["getpgid"], 0)
            self._with(skeleton, self._ptys.made[control.device], terminal.TIOCSPGRP, group.to_bytes(4, "little", signed=True))

    def _with(self, skeleton: Skeleton, pty: Pty, request: int, content: bytes = b"") -> None:
        (fd,) = hand_over(skeleton, self._sender, [pty.slave])
        argument = skeleton.main.put(content) if content else 0
        skeleton.main.all(
            [(NR["ioctl"], (fd, request, argument)), (NR["close"], (fd,))], f"process {skeleton.pid} terminal {pty.path}"
        )
        skeleton.main.clear()
