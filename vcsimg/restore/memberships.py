"""Multicast groups that sockets had joined, on the interfaces of the same names."""

from __future__ import annotations

import socket
from contextlib import suppress

from vcsimg.errors import HostileImage
from vcsimg.image.sections import sockets as items
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.kernel.multicast import Group, Membership, join
from vcsimg.kernel.sockets import Handle


def restore_memberships(process: Process, fd: int, found: items.Socket, what: str, notes: list[str]) -> None:
    """Of one socket. Raises HostileImage."""
    for wanted in select(process.section("sockets"), items.Membership):
        if wanted.fd != found.fd:
            continue
        family = socket.AF_INET6 if ":" in wanted.group else socket.AF_INET
        try:
            index = socket.if_nametoindex(wanted.interface)
            group = Group(family, index, wanted.interface, wanted.group)
            join(Handle(fd), Membership(group, wanted.exclude, tuple(wanted.sources.split())))
        except OSError as error:
            if not _is_address(family, wanted.group):
                raise HostileImage(what, f"{wanted.group!r} is no multicast group") from None
            notes.append(f"{what}: it is not in the multicast group {wanted.group} on {wanted.interface}: {error.strerror}")


def _is_address(family: int, text: str) -> bool:
    with suppress(OSError):
        return bool(socket.inet_pton(family, text))
    return False
