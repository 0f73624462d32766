"""Ending processes right after a capture of them, so that they go on elsewhere, or later, where the capture was made.

They stay stopped until the capture is stored, and never run again. Their TCP connections are made deaf before anything is read: what the other side
sends meanwhile is dropped before it is acknowledged, and sent again to whoever restores them. They are closed in repair mode (TCP_REPAIR), in which
closing is silent. If the capture fails, they hear again, the processes go on, and nothing is lost.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress

from vcsimg.errors import NotPermitted, UnsupportedProcess
from vcsimg.kernel import pidfd, tcp
from vcsimg.kernel.sockets import (
    NOTHING_PASSES,
    Handle,
    address_text,
    attach_filter,
    attached_filter,
    detach_filter,
    peer_address,
)
from vcsimg.process import HeldProcess

_ESTABLISHED = 1
_PATIENCE = 10_000
"""Milliseconds that a process may take to end."""


class Farewell:
    """Of held processes. close() ends it: processes that end() has not ended are as they were."""

    def __init__(self, helds: Sequence[HeldProcess]) -> None:
        """Raises NotPermitted, UnsupportedProcess."""
        self._pids = [held.pid for held in helds]
        self._connections: dict[str, tuple[Handle, int]] = {}
        try:
            for held in helds:
                self._silence(held.pid)
            self._refuse_others()
        except BaseException:
            self.close()
            raise

    def _silence(self, pid: int) -> None:
        process = pidfd.open(pid)
        try:
            for fd, link in _sockets(pid):
                if link in self._connections:
                    continue
                own = pidfd.getfd(process, fd)
                try:
                    handle = Handle(own)
                    if not _is_connection(handle):
                        os.close(own)
                        continue
                    reuse = self._make_deaf(pid, fd, handle)
                except BaseException:
                    os.close(own)
                    raise
                self._connections[link] = handle, reuse
        finally:
            os.close(process)

    @staticmethod
    def _make_deaf(pid: int, fd: int, handle: Handle) -> int:
        """Returns its SO_REUSEADDR."""
        peer = address_text(peer_address(handle.fd) or b"")
        what = f"its connection to {peer} (fd {fd})"
        if attached_filter(handle) not in (b"", NOTHING_PASSES):
            raise UnsupportedProcess(pid, f"{what} has a filter: it cannot be ended without the other side being told")
        try:
            reuse = tcp.begin_repair(handle)
            tcp.end_repair(handle, reuse, probe=False)
        except PermissionError:
            raise NotPermitted(
                pid,
                f"ending {what} without the other side being told takes CAP_NET_ADMIN",
                remedy="Run vcsimg as root, or capture it without --kill and end it yourself: then the other side is told.",
            ) from None
        attach_filter(handle, NOTHING_PASSES)
        return reuse

    def _refuse_others(self) -> None:
        """A connection that another process has, too, is not closed when these end."""
        for name in os.listdir("/proc") if self._connections else ():
            if name.isdigit() and int(name) not in self._pids:
                for _, link in _sockets(int(name)):
                    if link in self._connections and int(name) != os.getpid():
                        peer = address_text(peer_address(self._connections[link][0].fd) or b"")
                        raise UnsupportedProcess(
                            self._pids[0], f"process {name}, which is not captured, has its connection to {peer} open, too"
                        )

    def end(self) -> None:
        """Kill them, when what was captured is stored. They must be let go afterwards."""
        for handle, _ in self._connections.values():
            tcp.begin_repair(handle)
        for pid in reversed(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def await_end(self) -> None:
        """When they were killed and let go: until they have ended."""
        for pid in self._pids:
            with suppress(ProcessLookupError):
                process = pidfd.open(pid)
                try:
                    poll = select.poll()
                    poll.register(process, select.POLLIN)
                    poll.poll(_PATIENCE)
                finally:
                    os.close(process)
        for handle, _ in self._connections.values():
            os.close(handle.fd)
        self._connections.clear()

    def close(self) -> None:
        """The connections hear again, unless await_end() was called."""
        for handle, reuse in self._connections.values():
            with suppress(OSError):
                tcp.end_repair(handle, reuse, probe=False)
            with suppress(OSError):
                detach_filter(handle)
            os.close(handle.fd)
        self._connections.clear()


def _sockets(pid: int) -> Iterator[tuple[int, str]]:
    """Descriptors of a process that are sockets, and their links."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return  # it has ended
    for name in names:
        with suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:"):
                yield int(name), link


def _is_connection(handle: Handle) -> bool:
    return (
        handle.family in (socket.AF_INET, socket.AF_INET6)
        and handle.protocol == socket.IPPROTO_TCP
        and tcp.state(handle) == _ESTABLISHED
    )
